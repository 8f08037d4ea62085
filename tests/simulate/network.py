"""Connections between instances: in order within each, with delays of their own, cut and lost at any moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from qiyu.model import InstanceId
from qiyu.protocol.links import LinkMessage, LinkWire, encode
from simulate.world import World

SECRET = b"the secret of the simulation"
CONNECT_SECONDS = 2.0
RESEND_SECONDS = 0.2


class Process(Protocol):
    """What the network knows of an instance."""

    host: int
    """Which of the processes it is, whatever number it has."""
    is_alive: bool

    @property
    def me(self) -> InstanceId: ...
    @property
    def is_joined(self) -> bool: ...

    def do(self, what: Callable[[], None]) -> None: ...
    def host_is_cut(self, other: Process) -> bool: ...
    def link_opened(self, link: End) -> None: ...
    def link_closed(self, link: End) -> None: ...
    def link_received(self, link: End, message: LinkMessage) -> None: ...


class End:
    """One side of a connection, with its wire."""

    def __init__(self, world: World, process: Process, peer: InstanceId, *, calls: bool) -> None:
        self.world = world
        self.process = process
        self.peer = peer
        nonce = world.random.randbytes(32)
        self.wire = LinkWire(process.me, SECRET, nonce, peer if calls else None)
        self.other: End
        self.is_open = True
        self.is_ready = False
        self.answered_at = world.now
        self.pinged_at: float | None = None
        self._arrives_at = 0.0
        self._under_way: deque[bytes] = deque()

    def send(self, message: LinkMessage) -> bool:
        if not self.is_ready or not self.is_open:
            return False
        self._carry(encode(message))
        return True

    def flush(self) -> None:
        data = self.wire.data_to_send()
        if data:
            self._carry(data)

    def close(self) -> None:
        """This side is done with it; the other finds out, if the network lets it."""
        if not self.is_open:
            return
        self.is_open = False
        self.process.do(lambda: self.process.link_closed(self))
        if not self.process.host_is_cut(self.other.process):
            self.world.soon(self.other.close)

    def _carry(self, data: bytes) -> None:
        delay = self.world.random.uniform(0.0002, 0.01) * (20 if self.world.chance(0.01) else 1)
        self._arrives_at = max(self.world.now + delay, self._arrives_at)
        self._under_way.append(data)
        self.world.after(self._arrives_at - self.world.now, self._arrive)

    def _arrive(self) -> None:
        """The oldest of what is under way: as with TCP, a cut holds it up, and it is lost only with all behind it."""
        other = self.other
        if not other.is_open:
            return
        if self.process.host_is_cut(other.process):
            self.world.after(RESEND_SECONDS, self._arrive)
            return
        data = self._under_way.popleft()
        other.process.do(lambda: other.receive(data))

    def receive(self, data: bytes) -> None:
        if not self.is_open:
            return
        messages = self.wire.receive_data(data)
        self.flush()
        if self.wire.error is not None:
            self.close()
            return
        if self.wire.peer is not None and not self.is_ready:
            self.peer = self.wire.peer
            self.is_ready = True
            self.answered_at = self.world.now
            self.process.link_opened(self)
        for message in messages:
            if self.is_open:
                self.process.link_received(self, message)


class Network:
    """Who can reach whom."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cuts: set[frozenset[int]] = set()

    def is_cut(self, one: int, other: int) -> bool:
        return frozenset((one, other)) in self.cuts

    def dial(self, process: Process, peer: InstanceId, at: Process | None, done: Callable[[str], None]) -> None:
        """Connect to whoever listens there; `done` is told "refused", "timeout" or "" at the end."""
        world = self.world
        if at is None or self.is_cut(process.host, at.host) or (at.is_alive and not at.is_joined):
            world.after(CONNECT_SECONDS, lambda: done("timeout"))
            return
        if not at.is_alive:
            world.soon(lambda: done("refused"))
            return
        caller, called = End(world, process, peer, calls=True), End(world, at, peer, calls=False)
        caller.other, called.other = called, caller
        world.soon(lambda: done(""))
        world.soon(caller.flush)

        def give_up() -> None:
            for end in (caller, called):
                if not end.is_ready:
                    end.close()

        world.after(CONNECT_SECONDS, give_up)
