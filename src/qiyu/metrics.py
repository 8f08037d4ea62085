"""What the server counts: plain numbers, added to where the thing happens, which Prometheus reads at /metrics.

Every message that is dropped, and every peer that is turned away, is counted here under what happened to it. The
sentence below a field is its HELP at /metrics, and its line in docs/metrics.md.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

TURN_BOUNDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
WAIT_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SAMPLE_SECONDS: Final = 15.0
"""How long a sampled message is waited for: it may have been refused, and the next one is as good."""


class Gauge(NamedTuple):
    """What rises and falls, read when somebody asks."""

    help: str
    read: Callable[[], int]


class Histogram:
    """How often something took how long, in seconds. `bounds` are inclusive; what is above them is counted too."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def __repr__(self) -> str:
        return f"<Histogram of {sum(self.counts)}, {self.total:g} s in all>"

    def observe(self, seconds: float) -> None:
        """Count one more."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class LatencySample:
    """Times one message at a time on its way from one client to the others; those that come meanwhile are not timed.

    So it costs a message two comparisons and a delivery nothing. The first message of a busy turn is the one that is
    taken, and it waits for all the others of that turn: the figures are on the high side, never on the low.
    """

    __slots__ = ("_begun", "_msg_id", "histogram", "is_delivered")

    def __init__(self, histogram: Histogram) -> None:
        self.histogram = histogram
        self.is_delivered = False
        """Its copies are in the outboxes: `sent` is to be called when those are sent."""
        self._msg_id = 0
        self._begun = 0.0

    def accepted(self, msg_id: int, seconds: float) -> None:
        """A message came at this moment of the monotonic clock."""
        if not self._msg_id or seconds - self._begun > SAMPLE_SECONDS:
            self._msg_id = msg_id
            self._begun = seconds
            self.is_delivered = False

    def delivered(self, msg_id: int, copies: int) -> None:
        """A message was put into so many outboxes."""
        if msg_id == self._msg_id:
            if copies:
                self.is_delivered = True
            else:
                self._msg_id = 0

    def sent(self, seconds: float) -> None:
        """What was delivered is with the kernel, but for receivers that are slow."""
        self.histogram.observe(max(seconds - self._begun, 0.0))
        self._msg_id = 0
        self.is_delivered = False


@dataclass(slots=True)
class Metrics:
    """Totals since the start."""

    connections_accepted: int = 0
    """Connections of clients, viewers and encoders that were let in."""
    connections_refused: int = 0
    """Connections over the limit: closed before a byte was read."""
    connections_refused_address: int = 0
    """Connections over the limit of their address ([limits] connections_per_address): closed likewise."""
    connections_refused_fruitless: int = 0
    """Connections of an address of which too many had ended without a login ([limits] logins_per_second): likewise."""
    connections_crashed: int = 0
    """Connections closed because of a bug in the server (logged with a traceback)."""
    http_connections_accepted: int = 0
    """HTTP connections that were let in."""
    http_connections_refused: int = 0
    """HTTP connections over the limit ([http] connections): closed before a byte was read."""
    http_connections_refused_address: int = 0
    """HTTP connections over the limit of their address ([http] connections_per_address): closed likewise."""
    http_requests: int = 0
    """Complete HTTP requests."""
    http_requests_refused: int = 0
    """HTTP requests answered with 503 because too many were under way ([http] requests)."""
    http_timed_out: int = 0
    """HTTP heads and bodies that did not come in time, and answers that were not read in time."""
    tls_handshakes: int = 0
    """TLS handshakes that came to their end."""
    tls_handshakes_failed: int = 0
    """TLS handshakes that did not: the peer spoke no TLS, broke off, or took too long ([tls] handshake_seconds)."""
    tls_handshakes_refused: int = 0
    """Connections closed before a byte was read because too many TLS handshakes were under way ([tls] handshakes)."""
    proxy_headers_refused: int = 0
    """Connections of configured proxies that began with no good PROXY protocol header (proxy_protocol): closed."""
    work: int = 0
    """What clients' packets and frames have cost, in units of about a microsecond (docs/discussion/fairness.md)."""
    turns_waited: int = 0
    """Reads of a connection that waited for a later turn, because it had had its share of this one."""
    reads_paced: int = 0
    """How often reading from a connection stopped for a moment because of its rate of packets ([limits])."""
    packets_too_fast: int = 0
    """How often a connection was told so (ERROR 429)."""
    messages_too_fast: int = 0
    """Messages and likes refused because of their connection's rate of messages (ERROR 429)."""
    room_messages_too_fast: int = 0
    """Messages refused because of their room's rate of messages (ERROR 429)."""
    logins_too_fast: int = 0
    """Logins refused because of their address's rate of logins, HTTP's among them (429)."""
    reads_stopped: int = 0
    """How often reading from a connection stopped because its peer did not read what it was owed."""
    turns: int = 0
    """Turns of the poller: reading what has come, then sending what is owed."""
    turns_long: int = 0
    """Turns that took over 50 ms."""
    turn_seconds: Histogram = field(default_factory=lambda: Histogram(TURN_BOUNDS))
    """How long the turns of the poller took: others wait as long."""
    logins: int = 0
    """Logins that were accepted."""
    logins_refused: int = 0
    """Logins that were not: a wrong or expired token, a wrong address."""
    logins_timed_out: int = 0
    """Connections closed because no login came in time (login_seconds)."""
    sessions_replaced: int = 0
    """Sessions that ended because the same user logged in again."""
    sessions_signed_out: int = 0
    """Sessions that ended because the HTTP session that they were opened by has ended."""
    sessions_idle: int = 0
    """Sessions that ended because nothing came from their client."""
    sessions_slow: int = 0
    """Sessions that ended because their client did not read what it was owed (outbox_hard_bytes)."""
    crowded_out: int = 0
    """Sessions and viewers ended as the slowest because all together were owed too much ([limits] queued_bytes)."""
    protocol_violations: int = 0
    """Connections closed because what came on them was not the protocol."""
    packets_received: int = 0
    """Packets that came from clients."""
    packets_refused: int = 0
    """Packets that were answered with an ERROR."""
    messages_accepted: int = 0
    """BIZ packets taken for delivery."""
    messages_crowded_out: int = 0
    """Messages refused because too many waited to be stored, of all or of their sender, address or room (ERROR 503)."""
    messages_repeated: int = 0
    """Messages whose clientMsgId was there already: receipted, and not delivered again."""
    messages_stored: int = 0
    """Messages that are in the database."""
    commit_seconds: Histogram = field(default_factory=lambda: Histogram(WAIT_BOUNDS))
    """How long it took to store a batch of messages and acknowledgements, waiting for a connection included."""
    messages_not_stored: int = 0
    """Messages delivered at once, for want of a clientMsgId, and then refused by the database."""
    receipts: int = 0
    """Receipts sent: the sender's word that its message is stored."""
    inbox_full: int = 0
    """Direct messages refused because their receiver's inbox is full."""
    inbox_share_full: int = 0
    """Direct messages refused because their receiver's inbox has as many of that sender as there is room left."""
    receivers_unknown: int = 0
    """Direct messages refused because their receiver has no account ([messages] known_receivers_only)."""
    inbox_acknowledged: int = 0
    """Direct messages taken out of an inbox, or never put into one, because their ACK came."""
    inbox_acks_dropped: int = 0
    """Acknowledgements not written because too many waited: those messages come again at the next login."""
    inbox_replayed: int = 0
    """Deliveries out of an inbox, at a login."""
    catch_up_replayed: int = 0
    """Deliveries to a member who came back to its room."""
    catch_ups_refused: int = 0
    """Returns to a room that were put off, because one session had asked for too much in a second."""
    deliveries: int = 0
    """Copies of messages put into an outbox."""
    deliveries_shared: int = 0
    """Those of them that members of a room which are up to date were owed by its feed, kept once for all of them."""
    delivery_seconds: Histogram = field(default_factory=lambda: Histogram(WAIT_BOUNDS))
    """How long it took from reading a message to handing its copies to the kernel, storing included; a sample."""
    deliveries_dropped: int = 0
    """Room messages and events not put into the outbox of a slow receiver (outbox_soft_bytes)."""
    packets_discarded: int = 0
    """Packets of any kind that were waiting for a session that ended as slow."""
    deliveries_acknowledged: int = 0
    """Deliveries whose ACK came."""
    in_flight_evicted: int = 0
    """Deliveries no longer waited for because a session's window was full."""
    in_flight_crowded_out: int = 0
    """Deliveries no longer waited for because all sessions together had too many ([ack] deliveries)."""
    redeliveries: int = 0
    """Deliveries sent again for want of an ACK."""
    room_deliveries_given_up: int = 0
    """Deliveries of room messages never acknowledged, after all attempts: left to the history."""
    direct_deliveries_given_up: int = 0
    """Never acknowledged, after all attempts: a room's are left to its history, direct ones to the inbox."""
    pushes: int = 0
    """Pictures that began to be pushed."""
    pushes_refused: int = 0
    """Pushes that were not let in: a wrong key, a room that is not open or on air already."""
    pushes_silent: int = 0
    """Pushes that were ended because nothing came."""
    pushes_unsupported: int = 0
    """Pushes that were ended because no browser could show them."""
    frames_unshown: int = 0
    """Frames of pushes that came before a viewer could have begun with them."""
    fragments_sent: int = 0
    """Copies of fragments put into a viewer's outbox."""
    fragments_dropped: int = 0
    """Fragments not put into the outbox of a viewer that waits for a key frame."""
    viewers_behind: int = 0
    """How often a viewer did not keep up, and was left out until a key frame."""
    viewers_slow: int = 0
    """Viewers closed because they did not keep up for too long."""
    presence_round_trips: int = 0
    """Batches of requests that were sent to presence."""
    presence_requests_failed: int = 0
    """Requests that presence did not answer, or answered with an error."""
    presence_requests_dropped: int = 0
    """Requests that presence was not asked, because too many waited."""
    pins_looked_up: int = 0
    """Users whose pin was asked for, as receivers of direct messages."""
    unpins_dropped: int = 0
    """Logouts that presence was not told of, because it was away and too many waited."""
    sessions_replaced_elsewhere: int = 0
    """Sessions that ended because a newer login stands on another instance."""
    kicks_sent: int = 0
    """Orders to another instance to end a session that a newer login here replaces."""
    directs_sent_on: int = 0
    """Direct messages sent to the instance of their receiver."""
    directs_not_announced: int = 0
    """Direct messages left in the inbox with nobody told, because presence or a link was away and too many waited."""
    homes_claimed: int = 0
    """Rooms that became at home here."""
    homes_released: int = 0
    """Rooms that are at home here no longer."""
    room_messages_sent_on: int = 0
    """Copies of room messages sent to other instances, one for each that has members."""
    room_messages_ignored: int = 0
    """Room messages received from an instance that is not, or no longer, the room's home; or a second time."""
    messages_forwarded: int = 0
    """Room messages sent to the home of their room on another instance, each time."""
    forwards_given_up: int = 0
    """Room messages sent to the home of their room and then refused, because that home was lost."""
    links_opened: int = 0
    """Connections to other instances, each time that one was made."""
    links_overflowed: int = 0
    """Connections to other instances that were broken off because too much waited to be sent."""
    link_packets_sent: int = 0
    """Packets sent to other instances."""
    link_packets_received: int = 0
    """Packets that came from other instances."""
    instances_fenced: int = 0
    """Other instances that this one has found dead, and kept from writing anything more."""
    rooms_lost: int = 0
    """How often the members of a room were sent away because its home could not be reached for too long."""
    room_gaps: int = 0
    """How often a room's members missed more, while its home moved, than they are sent again."""
    latency: LatencySample = field(init=False)

    def __post_init__(self) -> None:
        self.latency = LatencySample(self.delivery_seconds)
