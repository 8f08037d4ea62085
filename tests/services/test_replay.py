"""The inbox on its way to who logs in, one page and one step of the peer at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import (
    DIRECT,
    Client,
    Harness,
    assert_nothing_is_left,
    assert_nothing_waits,
    ids_of,
    in_flight_of,
)
from qiyu.services import deferral, replay
from qiyu.services.replay import PAGE_MESSAGES

ALICE, BOB = 10_001, 10_002


@pytest.fixture
def harness() -> Iterator[Harness]:
    """Alice is here and Bob is not."""
    harness = Harness()
    harness.log_in(ALICE)
    yield harness
    harness.settle()
    assert_nothing_is_left(harness)


def alice(harness: Harness) -> Client:
    session = harness.node.hub.find(10_001, ALICE)
    assert session is not None
    peer: Client = session.outbox.owner
    return peer


def write_to_bob(harness: Harness, *contents: object) -> None:
    for content in contents:
        alice(harness).whisper(BOB, str(content))


def inbox_of_bob(harness: Harness) -> list[int]:
    with harness.store.engine.begin() as c:
        return list(c.exec_driver_sql("SELECT msg_id FROM t_im_inbox WHERE user_id = ?", (BOB,)).scalars())


@pytest.mark.parametrize("number", [0, 1, PAGE_MESSAGES - 1, PAGE_MESSAGES, PAGE_MESSAGES + 1, 250])
def test_it_comes_oldest_first_however_many_pages_it_has(harness: Harness, number: int) -> None:
    write_to_bob(harness, *range(number))
    bob = harness.log_in(BOB)
    received = bob.receive()
    assert [packet.data["content"] for packet in received] == [str(n) for n in range(number)]
    assert {packet.body["bizCode"] for packet in received} <= {DIRECT}
    assert list(in_flight_of(bob.session)) == ids_of(received)
    assert not harness.node.replays.is_replaying(bob.session)
    assert harness.metrics.inbox_replayed == number
    bob.acknowledge(*ids_of(received))
    assert inbox_of_bob(harness) == []
    assert harness.log_in(BOB).receive() == []


def test_over_a_websocket_too(harness: Harness) -> None:
    write_to_bob(harness, "x")
    assert harness.log_in_ws(BOB).contents() == ["x"]


def test_what_is_not_acknowledged_comes_at_the_next_login_too(harness: Harness) -> None:
    write_to_bob(harness, 1, 2, 3)
    first = harness.log_in(BOB)
    ids = ids_of(first.receive())
    first.acknowledge(ids[1])
    assert ids_of(harness.log_in(BOB).receive()) == [ids[0], ids[2]]


def test_it_comes_before_newer_ones_that_arrive_meanwhile(harness: Harness) -> None:
    write_to_bob(harness, *range(150))
    harness.stores_at_once = False
    bob = harness.log_in(BOB)
    write_to_bob(harness, "newer 1")
    assert bob.receive() == []
    harness.read()
    assert bob.contents() == [str(n) for n in range(100)]
    write_to_bob(harness, "newer 2")
    harness.write()  # of these, the inbox has one copy, and what was put aside is another
    harness.read()
    write_to_bob(harness, "newer 3")
    harness.settle()
    assert bob.contents() == [*(str(n) for n in range(100, 150)), "newer 1", "newer 2", "newer 3"]
    assert not harness.node.replays.is_replaying(bob.session)


def test_it_is_live_in_the_step_in_which_nothing_more_is_found(harness: Harness) -> None:
    harness.stores_at_once = False
    bob = harness.log_in(BOB)
    write_to_bob(harness, "put aside")
    assert bob.receive() == []
    harness.read()
    assert bob.contents() == ["put aside"]
    write_to_bob(harness, "live")
    assert bob.contents() == ["live"]


def test_what_was_accepted_before_the_login_is_not_missed(harness: Harness) -> None:
    harness.stores_at_once = False
    alice(harness).whisper(BOB, "wants a receipt", "c-1")
    write_to_bob(harness, "behind it")
    bob = harness.log_in(BOB)
    assert not harness.read()  # until that is stored
    harness.settle()
    assert bob.contents() == ["wants a receipt", "behind it"]


def test_what_was_delivered_at_once_to_nobody_is_not_missed(harness: Harness) -> None:
    harness.stores_at_once = False
    write_to_bob(harness, "at once")
    bob = harness.log_in(BOB)
    assert not harness.read()
    harness.settle()
    assert bob.contents() == ["at once"]


def test_what_is_in_the_page_and_was_put_aside_comes_once(harness: Harness) -> None:
    write_to_bob(harness, "old")
    harness.stores_at_once = False
    bob = harness.log_in(BOB)
    write_to_bob(harness, "new")
    harness.write()
    assert len(inbox_of_bob(harness)) == 2
    harness.settle()
    assert bob.contents() == ["old", "new"]


def test_what_came_in_the_page_and_was_acknowledged_does_not_come_again(harness: Harness) -> None:
    write_to_bob(harness, "old")
    harness.stores_at_once = False
    bob = harness.log_in(BOB)
    write_to_bob(harness, "new")
    harness.write()
    harness.read()
    received = bob.receive()
    assert len(received) == 2
    bob.acknowledge(*ids_of(received))
    harness.settle()
    assert bob.receive() == []


def test_what_is_committed_and_read_before_it_is_delivered_comes_once(harness: Harness) -> None:
    harness.stores_at_once = False
    bob = harness.log_in(BOB)
    alice(harness).whisper(BOB, "x", "c-1")
    batch = harness.take()
    assert harness.store.take_step(batch, harness.now)
    while harness.read():
        pass
    assert bob.contents() == ["x"]
    harness.finish(batch)
    assert bob.contents() == []


def test_more_than_is_put_aside_is_read_again(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferral, "DEFERRED_MESSAGES", 3)
    write_to_bob(harness, "old")
    harness.stores_at_once = False
    bob = harness.log_in(BOB)
    harness.read()
    write_to_bob(harness, *range(10))
    harness.settle()
    assert bob.contents() == ["old", *(str(n) for n in range(10))]
    assert not harness.node.replays.is_replaying(bob.session)


def test_and_again_while_they_go_on_coming(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferral, "DEFERRED_MESSAGES", 3)
    harness.stores_at_once = False
    bob = harness.log_in(BOB)
    written = 0
    for _ in range(5):
        write_to_bob(harness, *range(written, written + 5))
        written += 5
        harness.read()
        harness.write()
    harness.settle()
    assert bob.contents() == [str(n) for n in range(written)]


def test_a_peer_that_does_not_read_is_paced(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "PACE_BYTES", 2000)
    write_to_bob(harness, *range(40))
    bob = harness.log_in(BOB)
    seen = bob.contents()
    assert 0 < len(seen) < 20
    for _ in range(3):
        harness.advance(0.25)
        before = bob.outbox.size
        harness.advance(0.25)
        assert 2000 <= bob.outbox.size == before < 3000  # it gets no more until it has read
        write_to_bob(harness, f"newer {len(seen)}")
        seen += bob.contents()
    while harness.node.replays.is_replaying(bob.session):
        harness.advance(0.25)
        harness.settle()
        seen += bob.contents()
    older = [content for content in seen if not content.startswith("newer")]
    assert seen[: len(older)] == older == [str(n) for n in range(40)]
    assert len(seen) == 43


def test_a_peer_that_does_not_read_does_not_end_as_slow_for_its_inbox() -> None:
    harness = Harness(limits={"outbox_soft_bytes": 300_000, "outbox_hard_bytes": 400_000})
    harness.log_in(ALICE)
    write_to_bob(harness, *("x" * 1900 for _ in range(300)))
    harness.log_in(BOB)
    harness.stores_at_once = False
    bob = harness.log_in(BOB)
    harness.settle()
    for _ in range(15):  # what is sent again after four seconds stops at the soft bound
        harness.advance(0.25)
        harness.settle()
    assert not bob.outbox.overflowed
    assert bob.outbox.size < 200_000
    assert_nothing_is_left(harness)


@pytest.mark.parametrize("when", ["not asked yet", "asked", "reading", "a page is owed", "another login"])
def test_a_session_that_ends_in_the_middle_leaves_nothing_behind(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(replay, "PACE_BYTES", 2000)
    write_to_bob(harness, *range(150))
    harness.stores_at_once = False
    bob = harness.log_in(BOB)
    write_to_bob(harness, "newer")
    node = harness.node
    if when == "asked":
        (session,) = node.replays.take_new()
        bob.hang_up()
        node.replays.checked(session, harness.now, is_empty=False)
    elif when == "reading":
        (session,) = node.replays.take_new()
        node.replays.checked(session, harness.now, is_empty=False)
        page = node.replays.take_page()
        assert page is not None
        bob.hang_up()
        node.replays.page(page[0], [], harness.now)
    elif when == "a page is owed":
        harness.read()
        bob.hang_up()
    elif when == "another login":
        harness.read()
        newer = harness.log_in(BOB)
        harness.write()
        seen: list[str] = []
        while harness.node.replays.is_replaying(newer.session):
            harness.advance(0.01)
            harness.settle()
            seen += newer.contents()
        assert seen == [*(str(n) for n in range(150)), "newer"]
    else:
        bob.hang_up()
    harness.settle()
    harness.advance(0.25)
    assert (node.replays._new, node.replays._reading, node.replays._sending) == ({}, {}, {})
    assert not harness.node.replays.is_replaying(bob.session)
    assert in_flight_of(bob.session) == {}
    if when != "another login":
        assert node.in_flight.deliveries == 0
    assert len(inbox_of_bob(harness)) == 151
    assert_nothing_waits(harness)


def test_only_so_many_are_asked_for_at_once(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "CHECKED_AT_ONCE", 2)
    harness.stores_at_once = False
    peers = [harness.log_in(20_000 + n) for n in range(5)]
    assert [len(harness.node.replays.take_new()) for _ in range(4)] == [2, 2, 1, 0]
    harness.node.replays.put_back([peer.session for peer in peers])
    harness.settle()
    assert not any(harness.node.replays.is_replaying(peer.session) for peer in peers)


def test_sessions_have_their_pages_in_turn(harness: Harness) -> None:
    harness.stores_at_once = False
    others = (20_001, 20_002)
    for other in others:
        for n in range(101):
            alice(harness).whisper(other, str(n))
    harness.settle()
    first, second = (harness.log_in(other) for other in others)
    harness.read()
    harness.read()
    assert (len(first.receive()), len(second.receive())) == (100, 100)
    harness.settle()
    assert (first.contents(), second.contents()) == (["100"], ["100"])


def test_a_page_that_could_not_be_read_is_asked_for_again(harness: Harness) -> None:
    write_to_bob(harness, "x")
    harness.stores_at_once = False
    bob = harness.log_in(BOB)
    node = harness.node
    (session,) = node.replays.take_new()
    node.replays.checked(session, harness.now, is_empty=False)
    page = node.replays.take_page()
    assert page == (bob.session, 0)
    assert node.replays.take_page() is None
    node.replays.put_back_page(bob.session)
    assert node.replays.take_page() == page
    node.replays.put_back_page(bob.session)
    harness.settle()
    assert bob.contents() == ["x"]


def test_a_message_to_oneself_during_ones_own_replay(harness: Harness) -> None:
    write_to_bob(harness, "old")
    harness.stores_at_once = False
    bob = harness.log_in(BOB)
    bob.whisper(BOB, "to myself")
    harness.settle()
    assert bob.contents() == ["old", "to myself"]


def test_one_that_is_held_reads_nothing_before_it_may(harness: Harness) -> None:
    write_to_bob(harness, 1)
    harness.settle()
    bob = harness.log_in(BOB)
    bob.receive()
    harness.node.replays.hold(bob.session)
    write_to_bob(harness, 2)
    harness.settle()
    assert bob.receive() == []
    harness.node.replays.read(bob.session)
    harness.settle()
    assert [packet.data["content"] for packet in bob.receive()] == ["2"]
    bob.acknowledge(*map(str, inbox_of_bob(harness)))


def test_the_answer_to_an_earlier_reading_is_none_to_a_later_one(harness: Harness) -> None:
    harness.stores_at_once = False
    bob = harness.log_in(BOB)
    replays = harness.node.replays
    (asked,) = replays.take_new()
    replays.read(bob.session)
    replays.checked(asked, harness.now, is_empty=True)  # as it was then
    assert replays.is_replaying(bob.session)
    replays.put_back([asked])
    (asked,) = replays.take_new()
    replays.checked(asked, harness.now, is_empty=True)
    assert not replays.is_replaying(bob.session)
