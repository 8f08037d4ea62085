"""The table of open links."""

from __future__ import annotations

from qiyu.metrics import Metrics
from qiyu.model import InstanceId
from qiyu.protocol.links import Kick, Kicked, LinkWire, encode
from qiyu.services.links import Link, Links

ME, LOWER, HIGHER = InstanceId(5, 1), InstanceId(4, 1), InstanceId(6, 1)


class Wire:
    """What a driver would write, and how it would hang up."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.takes = True
        self.ended: list[str] = []

    def write(self, data: bytes) -> bool:
        if self.takes:
            self.written.append(data)
        return self.takes

    def link(self, peer: InstanceId, *, is_mine: bool) -> Link:
        return Link(peer, is_mine, self.write, self.ended.append, 0.0)


def test_what_is_said_goes_out_on_the_link_to_whom_it_is_for() -> None:
    links, lower, higher = Links(ME, Metrics()), Wire(), Wire()
    links.add(lower.link(LOWER, is_mine=False))
    links.add(higher.link(HIGHER, is_mine=True))
    kick, kicked = Kick(1, 2, 3), Kicked(1, 2, 3)
    assert links.send(LOWER, kick)
    assert links.send(HIGHER, kick)
    assert links.send(LOWER, kicked)
    assert not links.send(InstanceId(4, 2), kick)
    assert lower.written == [encode(kick), encode(kicked)]
    assert higher.written == [encode(kick)]
    assert lower.written[0] is higher.written[0]
    assert links.metrics.link_packets_sent == 3
    assert len(links) == links.metrics.links_opened == 2


def test_what_a_link_does_not_take_is_not_sent() -> None:
    links, wire = Links(ME, Metrics()), Wire()
    links.add(wire.link(LOWER, is_mine=True))
    wire.takes = False
    assert not links.send(LOWER, Kick(1, 2, 3))
    assert links.metrics.link_packets_sent == 0


def test_of_two_links_both_sides_keep_the_one_that_the_lower_number_made() -> None:
    for peer, by_lower in ((LOWER, False), (HIGHER, True)):
        links, wire = Links(ME, Metrics()), Wire()
        assert links.stays(wire.link(peer, is_mine=not by_lower))
        links.add(wire.link(peer, is_mine=not by_lower))
        assert links.stays(wire.link(peer, is_mine=by_lower))
        assert not links.stays(wire.link(peer, is_mine=not by_lower))


def test_a_link_that_is_replaced_takes_no_other_away_with_it() -> None:
    links, wire = Links(ME, Metrics()), Wire()
    old, new = wire.link(LOWER, is_mine=True), wire.link(LOWER, is_mine=False)
    links.add(old)
    links.add(new)
    assert not links.remove(old)
    assert links.find(LOWER) is new
    assert links.remove(new)
    assert not links.has(LOWER)


def test_a_packet_reads_as_it_was_written() -> None:
    caller = LinkWire(ME, b"secret", bytes(32), LOWER)
    called = LinkWire(LOWER, b"secret", bytes([1]) * 32)
    for _ in range(2):
        called.receive_data(caller.data_to_send())
        caller.receive_data(called.data_to_send())
    links, wire = Links(ME, Metrics()), Wire()
    links.add(wire.link(LOWER, is_mine=True))
    links.send(LOWER, Kick(1, 2, 3))
    assert called.receive_data(b"".join(wire.written)) == [Kick(1, 2, 3)]
