"""What the server counts: plain integers, added to where the thing happens.

Every message that is dropped, and every peer that is turned away, is counted here under what happened to it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Metrics:
    """Totals since the start."""

    connections_accepted: int = 0
    connections_refused: int = 0
    """Over the limit of connections: closed before a byte was read."""
    connections_crashed: int = 0
    """Closed because of a bug in the server (logged with a traceback)."""
    turns: int = 0
    """Of the poller: reading what has come, then sending what is owed."""
    turns_long: int = 0
    """Turns that took over 50 ms."""
    logins: int = 0
    logins_refused: int = 0
    logins_timed_out: int = 0
    sessions_replaced: int = 0
    sessions_idle: int = 0
    sessions_slow: int = 0
    protocol_violations: int = 0
    packets_received: int = 0
    packets_refused: int = 0
    messages_accepted: int = 0
    """BIZ packets taken for delivery."""
    messages_repeated: int = 0
    """Messages whose clientMsgId was there already: receipted, and not delivered again."""
    messages_stored: int = 0
    messages_not_stored: int = 0
    """Accepted and delivered without a clientMsgId, and then refused by the database."""
    receipts: int = 0
    inbox_full: int = 0
    """Direct messages refused because their receiver's inbox is full."""
    inbox_acknowledged: int = 0
    """Direct messages taken out of an inbox, or never put into one, because their ACK came."""
    inbox_acks_dropped: int = 0
    """Acknowledgements not written because too many waited: those messages come again at the next login."""
    inbox_replayed: int = 0
    """Deliveries out of an inbox, at a login."""
    catch_up_replayed: int = 0
    """Deliveries to a member who came back to its room."""
    deliveries: int = 0
    """Copies of messages put into an outbox."""
    deliveries_shared: int = 0
    """Those of them that members of a room which are up to date were owed by its feed, kept once for all of them."""
    deliveries_dropped: int = 0
    """Room messages and events not put into the outbox of a slow receiver (outbox_soft_bytes)."""
    packets_discarded: int = 0
    """Packets of any kind that were waiting for a session that ended as slow."""
    deliveries_acknowledged: int = 0
    in_flight_evicted: int = 0
    """Deliveries no longer waited for because a session's window was full."""
    in_flight_crowded_out: int = 0
    """Deliveries no longer waited for because all sessions together had too many ([ack] deliveries)."""
    redeliveries: int = 0
    """Deliveries sent again for want of an ACK."""
    room_deliveries_given_up: int = 0
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
    presence_requests_dropped: int = 0
    """Not asked, because too many waited."""
    pins_looked_up: int = 0
    """Of receivers of direct messages."""
    unpins_dropped: int = 0
    """Logouts that presence was not told of, because it was away and too many waited."""
    sessions_replaced_elsewhere: int = 0
    """Ended because a newer login stands on another instance."""
    kicks_sent: int = 0
    directs_sent_on: int = 0
    """Direct messages sent to the instance of their receiver."""
    directs_not_announced: int = 0
    """Left in the inbox with nobody told, because presence or a link was away and too many waited."""
    homes_claimed: int = 0
    """Rooms that became at home here."""
    homes_released: int = 0
    room_messages_sent_on: int = 0
    """Copies of room messages sent to other instances, one for each that has members."""
    room_messages_ignored: int = 0
    """Received from an instance that is not, or no longer, the room's home; or a second time."""
    messages_forwarded: int = 0
    """Room messages sent to the home of their room on another instance, each time."""
    forwards_given_up: int = 0
    """Of them, those refused because the room's home was lost."""
