"""One task drives every client socket.

A turn: ask which sockets are ready; read each once into the one shared buffer and hand the bytes down; then send each
outbox that has gathered something, with one system call however many packets it holds; then close what is to be closed.

Rules that keep it right:

- A socket is closed only at the end of a turn, so that a file descriptor seen twice in a turn is the same connection.
- What the kernel does not take waits in the outbox until the socket is writable; nothing here waits for one peer.
- Good-bye: what is owed is sent, then our side is shut, then the peer's last bytes are read and thrown away until it
  closes too (closing with unread bytes would reset the connection, and the peer might never read our last packet).
  All of it within about a second (the clock ticks four times in one), whatever the peer does.
- A peer that has shut its side is watched for writing and for errors only: it would be readable for ever. It is closed
  when its endpoint has ended and all is sent.
- What may wait a moment (`Outbox.is_bulk`: the picture) is sent after everything else, for a limited part of a turn;
  the rest of it comes after what others have had to say meanwhile.
- Who makes much work has a share of each turn, and its bytes wait in the kernel meanwhile; who does not read what it is
  owed is read no further than it reads itself (docs/discussion/fairness.md).
- An error in handling one connection's bytes is logged with its endpoint and closes that connection, no other.
"""

from __future__ import annotations

import socket
import ssl
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import structlog
import trio

from qiyu.drivers.alarm import Alarm
from qiyu.drivers.connection import PlainConnection, Share
from qiyu.drivers.event_source import READ, WRITE, EventSource
from qiyu.drivers.handshakes import HandshakeRules, Handshakes
from qiyu.drivers.tls_connection import TlsConnection
from qiyu.handlers.dispatch import Dispatcher
from qiyu.model import Address, Instant, network_of
from qiyu.routing.endpoint import Door, Endpoint
from qiyu.routing.outbox import Outbox

log = structlog.get_logger(__name__)

# How much is read of a connection at once: as much as lately made about half a share of work, so that pictures are read
# in large pieces, and little frames in small ones.
FIRST_READ_BYTES: Final = 2 * 1024
LEAST_READ_BYTES: Final = 512
READ_BYTES: Final = 256 * 1024
SEND_BYTES: Final = 256 * 1024  # at most, in one call
LINGER_SECONDS: Final = 1.0
BUSY_SECONDS: Final = 0.005  # how long turns may follow each other before other tasks get theirs
SHARED_SECONDS: Final = 0.002  # the same while some connections have more than their share
# In units of about a microsecond (Metrics.work):
SHARE_WORK: Final = 128  # what one connection may do in a turn
BACKLOG_WORK: Final = 512  # what those that have more than that may do in a turn, all together
TURN_WORK: Final = 10_000
BYTES_A_UNIT: Final = 1024
CLOGGED_BYTES: Final = 64 * 1024  # beyond what the kernel holds
# How much one turn does at most, so that a room of thousands does not keep everybody else waiting: about 20 ms each.
DELIVERIES_A_TURN: Final = 20_000
FLUSHES_A_TURN: Final = 5_000
BULK_SECONDS: Final = 0.002  # for what may wait
LONG_TURN_SECONDS: Final = 0.05


class Poller:
    """Drives the sockets it is given."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        source: EventSource,
        clock: Callable[[], Instant],
    ) -> None:
        self._dispatcher = dispatcher
        self._metrics = dispatcher.node.metrics
        self._source = source
        self._clock = clock
        self._connections: dict[int, PlainConnection] = {}
        self._buffers = _beginnings(memoryview(bytearray(READ_BYTES)))
        self._first_buffer = next(buffer for buffer in self._buffers if len(buffer) >= FIRST_READ_BYTES)
        self._backlog: deque[PlainConnection] = deque()  # of connections that have had their share, and have more
        self._dirty: list[Outbox] = []
        self._bulk: deque[Outbox] = deque()
        self._left: list[tuple[int, int]] = []  # events that one turn had no time for
        self._paused: list[PlainConnection] = []  # they sent more than they may in the time
        self.by_address: Counter[Address] = Counter()
        """How many connections each address has; of IPv6, each network of 64 bits."""
        self._closing: list[PlainConnection] = []
        self._ending: deque[PlainConnection] = deque()  # endpoints have ended; by deadline
        self._alarm = Alarm()
        self.handshakes = Handshakes(HandshakeRules(), self._metrics)
        self._asleep = False
        self._emptied: trio.Event | None = None
        self._wake_for_all = self._wake  # made once: each outbox would keep a bound method of its own, of 64 bytes
        source.register(self._alarm.fileno())

    def __len__(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def __repr__(self) -> str:
        return f"<Poller connections={len(self)} dirty={len(self._dirty)}>"

    def add(self, sock: socket.socket, door: Door, address: Address, tls: ssl.SSLContext | None = None) -> Endpoint:
        """Drive a connected, non-blocking socket from now on, and close it in the end. Raises OSError if it cannot."""
        self._source.register(sock.fileno())  # first, for it may fail
        outbox = self._dispatcher.node.outboxes.open(self._wake_for_all)
        now = self._clock()
        endpoint = self._dispatcher.opened(door, outbox, address, now)
        connection = PlainConnection(sock, outbox, endpoint) if tls is None else self._secured(sock, endpoint, tls, now)
        outbox.owner = connection
        self._connections[connection.fd] = connection
        self.by_address[network_of(address)] += 1
        return endpoint

    def _secured(self, sock: socket.socket, endpoint: Endpoint, tls: ssl.SSLContext, now: Instant) -> PlainConnection:
        connection = TlsConnection(sock, endpoint.outbox, endpoint, tls, self.handshakes)
        self.handshakes.begin(connection, now.monotonic)
        return connection

    async def run(self) -> None:
        """Drive until cancelled; then close every socket."""
        try:
            while True:
                await self._sleep()
                self._work()
        finally:
            self._close_all()

    async def drained(self) -> None:
        """Return once no connection is left."""
        while self._connections:
            self._emptied = trio.Event()
            await self._emptied.wait()

    def run_for(self, endpoint: Endpoint, act: Callable[[], None]) -> None:
        """Do what another task has for an endpoint; a bug in it closes that connection, as when bytes come."""
        connection: PlainConnection | None = endpoint.outbox.owner
        if connection is None:
            return
        try:
            act()
        except Exception as bug:  # noqa: BLE001
            self._crashed(connection, bug)

    def expire(self, now: Instant) -> None:
        """Close what has had its second to say good-bye, or its time for a TLS handshake; read on where it is time."""
        if self._paused:
            self._resume(now)
        for connection in self.handshakes.late(now.monotonic):
            self._close_later(connection)
        ending = self._ending
        while ending and ending[0].deadline <= now.monotonic:
            self._close_later(ending.popleft())
        self._close_now()

    def _wake(self, outbox: Outbox) -> None:
        if not outbox.is_bulk:
            self._dirty.append(outbox)
        elif not outbox.is_due:
            outbox.is_due = True
            self._bulk.append(outbox)
        if self._asleep:
            self._asleep = False
            self._alarm.ring()

    async def _sleep(self) -> None:
        if self._dirty or self._left or self._bulk or self._backlog:
            await trio.lowlevel.checkpoint()
            return
        self._asleep = True
        try:
            await trio.lowlevel.wait_readable(self._source.fileno())
        finally:
            self._asleep = False

    def _work(self) -> None:
        begun = until = 0.0
        while True:
            events = self._left or self._source.poll()
            if not events and not self._dirty and not self._bulk and not self._backlog:
                break
            now = self._clock()
            if until:
                self._count_turn(begun, now.monotonic)
            else:
                until = now.monotonic + (SHARED_SECONDS if self._backlog else BUSY_SECONDS)
            begun = now.monotonic
            self._turn(events, now)
            if begun >= until:
                break
        if until:
            self._count_turn(begun, self._clock().monotonic)

    def _count_turn(self, begun: float, ended: float) -> None:
        metrics = self._metrics
        metrics.turns += 1
        metrics.turn_seconds.observe(ended - begun)
        if ended - begun > LONG_TURN_SECONDS:
            metrics.turns_long += 1
        if metrics.latency.is_delivered and not self._dirty:
            metrics.latency.sent(ended)

    def _turn(self, events: list[tuple[int, int]], now: Instant) -> None:  # noqa: C901  # unrolled
        connections = self._connections
        metrics = self._metrics
        enough = metrics.deliveries + DELIVERIES_A_TURN
        enough_work = metrics.work + TURN_WORK
        self._left = []
        for done, (fd, event) in enumerate(events):
            if metrics.deliveries > enough or metrics.work > enough_work:
                # First in the next turn: asked again, the source might put the same ones in front of them for ever.
                # Whoever has gone by then is not found, and one that came with the same number has nothing to read.
                self._left = events[done:]
                break
            connection = connections.get(fd)
            if connection is None:
                self._alarm.clear()  # nothing else is watched
                continue
            if event & WRITE:
                self._writable(connection, now)
            if event != WRITE:
                share = connection.share
                if share is None or not share.waits or event != READ:
                    self._read(connection, now, event)
        if self._backlog:
            self._read_backlog(now)
        if self._dirty:
            self._flush_dirty(now)
        if self._bulk:
            self._flush_bulk(now)
        if self._closing:
            self._close_now()

    def _writable(self, connection: PlainConnection, now: Instant) -> None:
        if connection.owes and not self._passed_on(connection):
            return
        if connection.outbox.is_bulk:
            self._wake(connection.outbox)
        else:
            self._flush(connection, now)
        share = connection.share
        if share is not None and share.is_clogged:
            self._unclog(connection, share, now)

    def _passed_on(self, connection: PlainConnection) -> bool:
        try:
            return connection.flush()
        except OSError:
            self._close_later(connection)
            return False

    def _flush_dirty(self, now: Instant) -> None:
        dirty, self._dirty = self._dirty[:FLUSHES_A_TURN], self._dirty[FLUSHES_A_TURN:]
        for outbox in dirty:
            if outbox.owner is not None:
                self._flush(outbox.owner, now)

    def _flush_bulk(self, now: Instant) -> None:
        until = self._clock().monotonic + BULK_SECONDS
        bulk = self._bulk
        for _ in range(len(bulk)):
            outbox = bulk.popleft()
            outbox.is_due = False
            if outbox.owner is not None:
                self._flush(outbox.owner, now)
            if self._clock().monotonic >= until:
                return

    def _read_backlog(self, now: Instant) -> None:
        """Deficit round robin: each has its share of work when its turn comes, and waits while it owes for more."""
        backlog = self._backlog
        metrics = self._metrics
        enough = metrics.work + BACKLOG_WORK
        while backlog and metrics.work < enough:
            connection = backlog.popleft()
            share = self._share_of(connection)
            if share.credit < 0:
                share.credit += SHARE_WORK
                backlog.append(connection)
                continue
            # Less than a share of credit is left to nobody: a turn has one read.
            share.waits = False
            share.credit = SHARE_WORK
            metrics.turns_waited += 1
            if not connection.at_eof:
                self._read(connection, now)
            if not share.waits:
                share.credit = SHARE_WORK

    def _share_of(self, connection: PlainConnection) -> Share:
        if connection.share is None:
            connection.share = Share(self._first_buffer, SHARE_WORK)
        return connection.share

    def _read(self, connection: PlainConnection, now: Instant, event: int = READ) -> None:
        if connection.closing:
            return
        share = connection.share
        if share is not None and (share.is_paused or share.is_clogged):
            if event > READ | WRITE:  # in error, or gone both ways: there is nobody to read for
                self._close_later(connection)
            return
        if connection.waits_to_write and connection.outbox.held > CLOGGED_BYTES and not connection.endpoint.ended:
            share = self._share_of(connection)
            # Its peer does not read what it is owed: it is not read either, or it would be owed ever more. This once it
            # is, for what comes may be its end.
            share.is_clogged = True
            self._metrics.reads_stopped += 1
            self._watch(connection)
        self._receive(connection, now)

    def _receive(self, connection: PlainConnection, now: Instant) -> None:
        share = connection.share
        buffer, credit = (self._first_buffer, SHARE_WORK) if share is None else (share.buffer, share.credit)
        metrics = self._metrics
        before = metrics.work
        try:
            size = connection.receive(buffer)
        except BlockingIOError:
            if connection.owes:
                self._wait_to_write(connection, True)
            return
        except OSError:  # reset, timed out, unreachable: the peer is gone
            self._close_later(connection)
            return
        try:
            if size:
                metrics.work += size // BYTES_A_UNIT
                self._dispatcher.received(connection.endpoint, buffer[:size], now)
                work = metrics.work - before
                if size == len(buffer) or work > credit:
                    self._had_its_share(connection, size, work)
                if connection.endpoint.read_from > now.monotonic:
                    self._pause(connection)
                return
            self._dispatcher.eof(connection.endpoint, now)
        except Exception as bug:  # noqa: BLE001
            self._crashed(connection, bug)
        if not size:
            self._ended(connection, now)

    def _had_its_share(self, connection: PlainConnection, size: int, work: int) -> None:
        """There is more of it, or was too much: the rest waits for its turn."""
        share = self._share_of(connection)
        share.credit -= work
        self._wait_its_turn(connection, share)
        wanted = size * SHARE_WORK // (2 * work) if work else READ_BYTES
        buffers = self._buffers
        if wanted < size:
            share.buffer = next((buffer for buffer in reversed(buffers) if len(buffer) <= wanted), buffers[0])
        elif size == len(share.buffer):
            share.buffer = next((buffer for buffer in buffers if 2 * size <= len(buffer) <= wanted), share.buffer)

    def _pause(self, connection: PlainConnection) -> None:
        """It sends faster than it may: the rest waits in the kernel until the clock says that it is time."""
        share = self._share_of(connection)
        if not share.is_paused:
            share.is_paused = True
            self._paused.append(connection)
            self._watch(connection)

    def _resume(self, now: Instant) -> None:
        paused, self._paused = self._paused, []
        for connection in paused:
            if connection.closing:
                continue
            endpoint = connection.endpoint
            if endpoint.read_from > now.monotonic and not endpoint.ended:
                self._paused.append(connection)
                continue
            self._share_of(connection).is_paused = False
            self._watch(connection)
            self._read_on(connection)
        if self._backlog and self._asleep:
            self._asleep = False
            self._alarm.ring()

    def _read_on(self, connection: PlainConnection) -> None:
        """It was not read for a while: something may wait of which the socket does not tell."""
        if not connection.at_eof:
            self._wait_its_turn(connection, self._share_of(connection))

    def _wait_its_turn(self, connection: PlainConnection, share: Share) -> None:
        if not share.waits:
            share.waits = True
            self._backlog.append(connection)

    def _unclog(self, connection: PlainConnection, share: Share, now: Instant) -> None:
        """Its peer has read some of what it is owed, so some of what it says is read: who is slow is not deaf."""
        connection.endpoint.last_seen = now.monotonic
        if not (connection.waits_to_write and connection.outbox.held > CLOGGED_BYTES):
            share.is_clogged = False
            self._watch(connection)
            self._read_on(connection)
        if not (connection.closing or connection.at_eof or share.is_paused):
            self._receive(connection, now)

    def _ended(self, connection: PlainConnection, now: Instant) -> None:
        """The peer has shut its side. It may still read: what it is owed, and the answers to what it sent."""
        if connection.at_eof:  # there is nothing it could say: what woke us was an error, a reset
            self._close_later(connection)
            return
        connection.at_eof = True
        self._flush(connection, now)
        if not connection.closing:
            self._watch(connection)

    def _flush(self, connection: PlainConnection, now: Instant) -> None:
        if connection.closing:
            return
        outbox = connection.outbox
        # Nearly always, all of it goes out at once, and that is that.
        is_plain = not (outbox.overflowed or outbox.finished or connection.waits_to_write or outbox.held > SEND_BYTES)
        if not is_plain:
            self._look_after(connection, outbox, now)
        data = outbox.take(SEND_BYTES)
        if data:
            try:
                sent = connection.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._close_later(connection)
                return
            if sent < len(data):
                outbox.put_back(data[sent:])
                self._wait_to_write(connection, True)
                return
        if is_plain:
            outbox.is_awake = False
            return
        self._wait_to_write(connection, False)
        if outbox.held:
            self._wake(outbox)  # one call a turn: the rest has its turn after everybody else's
            return
        outbox.is_awake = False
        if outbox.finished:
            self._shut(connection)

    def _look_after(self, connection: PlainConnection, outbox: Outbox, now: Instant) -> None:
        if outbox.overflowed:
            self._overflowed(connection)
        if outbox.finished and not connection.deadline:
            connection.deadline = now.monotonic + LINGER_SECONDS
            self._ending.append(connection)

    def _wait_to_write(self, connection: PlainConnection, wanted: bool) -> None:
        if connection.waits_to_write is not wanted:
            connection.waits_to_write = wanted
            if not wanted and connection.share is not None and connection.share.is_clogged:
                connection.share.is_clogged = False
                self._read_on(connection)
            self._watch(connection)

    def _watch(self, connection: PlainConnection) -> None:
        share = connection.share
        is_silenced = share is not None and (share.is_clogged or share.is_paused)
        events = (0 if connection.at_eof or is_silenced else READ) | (WRITE if connection.waits_to_write else 0)
        self._source.watch(connection.fd, events)

    def _shut(self, connection: PlainConnection) -> None:
        if connection.at_eof:
            self._close_later(connection)
            return
        try:
            connection.shut()
        except OSError:  # the peer was faster
            self._close_later(connection)

    def _overflowed(self, connection: PlainConnection) -> None:
        try:
            self._dispatcher.overflowed(connection.endpoint)
        except Exception as bug:  # noqa: BLE001
            self._crashed(connection, bug)

    def _crashed(self, connection: PlainConnection, bug: Exception) -> None:
        log.error("a connection is closed because of a bug", session=repr(connection.endpoint), exc_info=bug)
        try:
            self._dispatcher.crashed(connection.endpoint)
        except Exception:
            log.exception("and it could not say good-bye", session=repr(connection.endpoint))
            self._close_later(connection)

    def _close_later(self, connection: PlainConnection) -> None:
        if not connection.closing:
            connection.closing = True
            self._closing.append(connection)

    def _close_now(self) -> None:
        closing, self._closing = self._closing, []
        for connection in closing:
            self._source.unregister(connection.fd)
            del self._connections[connection.fd]
            self._forget_address(connection.endpoint.address)
            connection.close()
            connection.outbox.owner = None  # they hold each other, and all that is owed, until somebody lets go
            try:
                self._dispatcher.closed(connection.endpoint)
            except Exception:
                log.exception("a closed connection could not be forgotten", session=repr(connection.endpoint))
        if self._emptied is not None and not self._connections:
            self._emptied.set()

    def _forget_address(self, address: Address) -> None:
        key = network_of(address)
        self.by_address[key] -= 1
        if not self.by_address[key]:
            del self.by_address[key]

    def _close_all(self) -> None:
        for connection in self._connections.values():
            self._close_later(connection)
        self._close_now()
        self._source.close()
        self._alarm.close()


def _beginnings(buffer: memoryview) -> list[memoryview]:
    """The first bytes of the buffer, each time twice as many, and then all of it."""
    sizes = [len(buffer)]
    while sizes[-1] > LEAST_READ_BYTES:
        sizes.append(sizes[-1] // 2)
    return [buffer[:size] for size in reversed(sizes)]
