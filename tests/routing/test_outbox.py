from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from qiyu.routing.outbox import Outbox, Outboxes, OutboxLimits
from qiyu.routing.publication import Kind


class Driver:
    """Notes who woke it."""

    def __init__(self) -> None:
        self.woken: list[Outbox] = []
        self.outboxes = Outboxes(OutboxLimits(0, 0))

    def outbox(self, hard: int = 0) -> Outbox:
        self.outboxes = Outboxes(OutboxLimits(0, hard))
        return self.outboxes.open(self.woken.append)


def push_spliced(outbox: Outbox, packet: bytes) -> None:
    outbox.push_spliced(packet[:2], packet[2:4], packet[4:], len(packet))


def test_it_is_empty_at_first() -> None:
    outbox = Driver().outbox()
    assert outbox.size == 0
    assert outbox.take(100) == b""
    assert not any([outbox.is_awake, outbox.finished, outbox.overflowed, outbox.gap])


def test_what_is_pushed_is_taken_at_once_and_in_order() -> None:
    outbox = Driver().outbox()
    outbox.push(b"first,")
    push_spliced(outbox, b"second,")
    outbox.push(b"third")
    assert outbox.size == len(b"first,second,third")
    assert outbox.take(outbox.size) == b"first,second,third"
    assert outbox.size == 0
    assert outbox.take(100) == b""


def test_only_the_first_push_wakes_the_driver() -> None:
    driver = Driver()
    outbox = driver.outbox()
    outbox.push(b"a")
    push_spliced(outbox, b"bcdefg")
    assert driver.woken == [outbox]
    assert outbox.is_awake
    outbox.take(100)
    outbox.is_awake = False
    push_spliced(outbox, b"hijklm")
    outbox.push(b"n")
    assert driver.woken == [outbox] * 2


@pytest.mark.parametrize("spliced", [False, True])
def test_at_the_hard_bound_and_a_byte_above(spliced: bool) -> None:
    driver = Driver()
    outbox = driver.outbox(hard=8)
    push = (lambda data: push_spliced(outbox, data)) if spliced else outbox.push
    push(b"12345678")
    assert not outbox.overflowed
    push(b"9")
    assert outbox.overflowed
    assert driver.woken == [outbox] * 2  # told again, though awake: there is something to do
    push(b"never")
    outbox.push(b"never")
    assert outbox.size == 9
    assert len(driver.woken) == 2


def test_finished_takes_nothing_more_but_gives_what_it_has() -> None:
    driver = Driver()
    outbox = driver.outbox()
    outbox.push(b"last words")
    outbox.finish()
    outbox.push(b"!")
    push_spliced(outbox, b"!!!!!")
    outbox.finish()
    assert driver.woken == [outbox] * 2
    assert outbox.take(100) == b"last words"


def test_finish_wakes_an_idle_driver() -> None:
    driver = Driver()
    outbox = driver.outbox()
    outbox.finish()
    assert driver.woken == [outbox]
    assert outbox.is_awake


def test_a_chunk_holds_whole_packets() -> None:
    outbox = Driver().outbox()
    for packet in (b"aaaaaa", b"bbbbbb", b"cccccc"):
        push_spliced(outbox, packet)
    outbox.push(b"d")
    assert outbox.take(13) == b"aaaaaabbbbbb"
    assert outbox.take(3) == b"cccccc"  # but at least one
    assert outbox.take(3) == b"d"


def test_what_the_socket_did_not_take_comes_first() -> None:
    outbox = Driver().outbox()
    outbox.push(b"first,")
    assert outbox.take(100) == b"first,"
    outbox.push(b"second")
    outbox.put_back(b"st,")
    assert outbox.size == 9
    assert outbox.take(100) == b"st,second"


def test_discard_leaves_room_for_a_last_word() -> None:
    outbox = Driver().outbox(hard=8)
    outbox.push(b"123456789")
    outbox.discard()
    assert outbox.size == 0
    assert not outbox.overflowed
    outbox.push(b"LOGOUT")
    outbox.push(b"and a close frame")  # however small the bound
    assert not outbox.overflowed
    assert outbox.take(100) == b"LOGOUTand a close frame"


def test_discard_keeps_the_rest_of_a_packet_that_was_begun() -> None:
    outbox = Driver().outbox()
    push_spliced(outbox, b"aaaaaa")
    push_spliced(outbox, b"bbbbbb")
    assert outbox.take(6) == b"aaaaaa"
    outbox.put_back(b"aaaa")
    outbox.discard()
    outbox.push(b"LOGOUT")
    assert outbox.take(100) == b"aaaaLOGOUT"


def test_discard_after_a_chunk_that_went_out_whole_keeps_nothing() -> None:
    outbox = Driver().outbox()
    push_spliced(outbox, b"aaaaaa")
    push_spliced(outbox, b"bbbbbb")
    outbox.take(7)
    outbox.discard()
    assert outbox.size == 0


def test_what_was_put_back_and_then_sent_is_no_beginning_any_more() -> None:
    outbox = Driver().outbox()
    push_spliced(outbox, b"aaaaaa")
    outbox.take(6)
    outbox.put_back(b"aaaa")
    assert outbox.take(6) == b"aaaa"
    push_spliced(outbox, b"bbbbbb")
    outbox.discard()
    assert outbox.size == 0


@pytest.mark.property
@given(
    st.lists(st.tuples(st.booleans(), st.binary(min_size=5, max_size=40)), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(1, 60), st.just(1000) | st.integers(0, 60)), min_size=1, max_size=6),
)
def test_a_peer_never_gets_half_a_packet_before_the_last_word(
    pushes: list[tuple[bool, bytes]], turns: list[tuple[int, int]]
) -> None:
    """Whatever sockets take of it in whatever portions, the stream is whole packets in order: all of them if nothing
    is discarded, else those of which anything was sent (or taken together with such), and then the last word.
    """
    outbox = Driver().outbox()
    for spliced, packet in pushes:
        if spliced:
            push_spliced(outbox, packet)
        else:
            outbox.push(packet)
    packets = [packet for _, packet in pushes]
    everything = b"".join(packets)
    stream = b""
    for at_most, accepted in turns:
        chunk = outbox.take(at_most)
        stream += chunk[:accepted]
        if accepted < len(chunk):
            outbox.put_back(chunk[accepted:])
        assert outbox.size == len(everything) - len(stream)
    sent = len(stream)
    outbox.discard()
    outbox.push(b"LOGOUT")
    stream += outbox.take(outbox.size)
    assert stream.endswith(b"LOGOUT")
    stream = stream.removesuffix(b"LOGOUT")
    ends = [sum(map(len, packets[:count])) for count in range(len(packets) + 1)]
    assert stream == everything[: len(stream)]
    assert len(stream) in ends
    assert len(stream) - sent <= max(60, *map(len, packets))  # what one take may hold


def test_a_closed_one_is_owed_nothing_and_takes_nothing() -> None:
    driver = Driver()
    outbox = driver.outbox()
    outbox.push(b"never read")
    outbox.close()
    outbox.push(b"never")
    push_spliced(outbox, b"never")
    outbox.finish()
    outbox.close()
    assert (outbox.size, outbox.packets, outbox.take(100)) == (0, 0, b"")
    assert driver.woken == [outbox]
    assert driver.outboxes.bytes == 0


class Total(RuleBasedStateMachine):
    """What all outboxes hold together is what each of them holds, whatever is pushed, taken, put back and closed."""

    WHICH = st.integers(0, 2)

    def __init__(self) -> None:
        super().__init__()
        self.outboxes = Outboxes(OutboxLimits(20, 60))
        self.open = [self.outboxes.open(lambda _: None) for _ in range(3)]
        self.ever = list(self.open)

    @rule(which=WHICH, packet=st.binary(min_size=5, max_size=30), spliced=st.booleans())
    def push(self, which: int, packet: bytes, spliced: bool) -> None:
        if spliced:
            push_spliced(self.open[which], packet)
        else:
            self.open[which].push(packet)

    @rule(which=WHICH, at_most=st.integers(1, 60), accepted=st.integers(0, 60))
    def send(self, which: int, at_most: int, accepted: int) -> None:
        chunk = self.open[which].take(at_most)
        if accepted < len(chunk):
            self.open[which].put_back(chunk[accepted:])

    @rule(which=WHICH)
    def discard(self, which: int) -> None:
        self.open[which].discard()

    @rule(which=WHICH)
    def finish(self, which: int) -> None:
        self.open[which].finish()

    @rule(which=WHICH)
    def close(self, which: int) -> None:
        self.open[which].close()
        self.open[which] = self.outboxes.open(lambda _: None)
        self.ever.append(self.open[which])

    @invariant()
    def the_total_is_the_sum(self) -> None:
        assert self.outboxes.bytes == sum(outbox.size for outbox in self.open)
        assert all(outbox.size == sum(map(len, outbox.parts or ())) for outbox in self.ever)


TestTotal = pytest.mark.property(Total.TestCase)


def test_limits_of_zero_are_none() -> None:
    limits = OutboxLimits(0, 0)
    assert limits.soft > 2**60
    assert limits.hard > 2**60


def test_above_the_hard_bound_is_above_the_soft_one() -> None:
    assert OutboxLimits(10, 20).soft == 10
    assert OutboxLimits(10, 20).hard == 20
    assert OutboxLimits(0, 20).soft == 21  # just when it has overflowed
    assert OutboxLimits(10, 0).soft == 10


@pytest.mark.parametrize("limits", [OutboxLimits(10, 20), OutboxLimits(0, 20), OutboxLimits(10, 0), OutboxLimits(0, 0)])
def test_what_can_be_done_without_goes_first(limits: OutboxLimits) -> None:
    mergeable, droppable, kept = map(limits.bound, (Kind.MERGEABLE, Kind.DROPPABLE, Kind.KEPT))
    assert mergeable == droppable // 2
    assert droppable == limits.soft <= kept
    assert kept == limits.hard + 1  # whatever an outbox holds that has not overflowed


def test_repr_shows_its_state() -> None:
    outbox = Driver().outbox(hard=4)
    assert repr(outbox) == "<Outbox 0 bytes, open>"
    outbox.push(b"12345")
    assert repr(outbox) == "<Outbox 5 bytes, overflowed>"
    outbox.finish()
    assert repr(outbox) == "<Outbox 5 bytes, finished>"


def test_repr_of_all() -> None:
    driver = Driver()
    driver.outbox().push(b"12345")
    assert repr(driver.outboxes) == "<Outboxes 5 bytes>"
