"""Several instances of the core in one process: one database, one presence, and links that can be cut."""

from __future__ import annotations

from collections import deque
from typing import Any

from harness import SECRET, Harness
from memory_database import MemoryStore
from qiyu.app import build_node
from qiyu.drivers.homes import _claim, _pages
from qiyu.handlers.dispatch import Dispatcher
from qiyu.model import InstanceId
from qiyu.presence.memory import MemoryPresence
from qiyu.protocol.links import LinkMessage, LinkWire
from qiyu.services.cluster import Cluster
from qiyu.services.links import Link
from qiyu.storage.homes import release_homes
from qiyu.storage.instances import claim, fence


def decoded(data: bytes) -> LinkMessage:
    """What an open link would read."""
    wire = LinkWire(InstanceId(0, 1), b"secret", bytes(32))
    wire.peer = InstanceId(1, 1)
    (message,) = wire.receive_data(data)
    return message


class Member(Harness):
    """One of them."""

    def __init__(self, several: Several, **sections: dict[str, Any]) -> None:
        super().__init__(several.store, **sections)
        self.stores_at_once = False
        self.several = several
        with self.store.engine.begin() as c:
            self.me = claim(c, address="test", number=None, alone=False, now_ms=0)
        node = build_node(
            self.settings, SECRET, self.store.largest_msg_id(), self.me.number, joined_as=self.me, joined_at=self.now
        )
        self.node, self.dispatcher, self.metrics = node, Dispatcher(node), node.metrics
        assert node.cluster is not None
        self.cluster: Cluster = node.cluster

    def step(self) -> bool:
        """What the drivers of one turn do; whether there was anything."""
        cluster = self.cluster
        cluster.before_asking()
        asked = cluster.presence.take()
        if asked:
            cluster.presence.answered(asked, self.several.presence.execute([one.request for one in asked]))
        claims, releases, fills = cluster.homes.take_claims(), cluster.homes.take_releases(), cluster.rooms.take_fills()
        now = self.now.monotonic
        with self.store.engine.begin() as c:
            if claims:
                found = _claim(c, self.me, claims, cluster.rooms.behind(claims))
                cluster.rooms.bring(found.pages)
            if releases:
                release_homes(c, self.me, {(each.key.app_id, each.key.room_id): each.term for each in releases})
            pages = _pages(c, {key: (fill.after, up_to) for key, (fill, up_to) in fills.items()})
        if claims:
            cluster.homes.claimed(found.claims, now)
        if releases:
            cluster.homes.released([each.key for each in releases], now)
        for key, (fill, up_to) in fills.items():
            cluster.rooms.filled(key, fill, up_to, pages[key])
        going_on = cluster.rooms.take_going_on()
        for session, then in going_on:
            self.dispatcher.resume(session, then, self.now)
        did = self.write() | self.read()
        return bool(did or asked or claims or releases or fills or going_on)


class Several:
    """All of them."""

    def __init__(self, number: int = 2, **sections: dict[str, Any]) -> None:
        self.store = MemoryStore()
        self.presence = MemoryPresence()
        self.members = [Member(self, **sections) for _ in range(number)]
        self.wires: dict[tuple[Member, Member], deque[bytes]] = {}
        self.links: dict[tuple[Member, Member], Link] = {}
        for one in self.members:
            for other in self.members:
                if one.me < other.me:
                    self.mend(one, other)
        self.pass_time(0.5)

    def mend(self, one: Member, other: Member) -> None:
        for near, far in ((one, other), (other, one)):
            wire = self.wires[near, far] = deque()

            def write(data: bytes, wire: deque[bytes] = wire) -> bool:
                wire.append(data)
                return True

            self.links[near, far] = Link(far.me, near is one, write, lambda _why: None, near.now.monotonic)
        for pair in ((one, other), (other, one)):
            pair[0].cluster.link_opened(self.links[pair], pair[0].now)

    def cut(self, one: Member, other: Member) -> None:
        for near, far in ((one, other), (other, one)):
            del self.wires[near, far]
            near.cluster.link_closed(self.links.pop((near, far)), near.now)

    def settle(self) -> None:
        """All that can be done without time passing."""
        did = True
        while did:
            steps = [member.step() for member in self.members]
            did = any(steps)
            for (near, far), wire in list(self.wires.items()):
                while wire:
                    did = True
                    far.cluster.received(self.links[far, near], decoded(wire.popleft()), far.now)

    def pass_time(self, seconds: float) -> None:
        while seconds > 0:
            seconds -= 0.25
            for member in self.members:
                member.advance(0.25)
                member.cluster.tick(member.now)
            self.settle()

    def fence(self, member: Member) -> None:
        """It is dead, and the others find out."""
        self.members.remove(member)
        for other in self.members:
            if (member, other) in self.wires:
                self.cut(member, other)
        with self.store.engine.begin() as c:
            fence(c, member.me)
        for other in self.members:
            other.cluster.leases.fenced(member.me)
        self.pass_time(0.5)
