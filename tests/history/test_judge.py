"""The checker is itself checked: a history with one fault has that one, and a perfect server's has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.judge import Kind, judge
from history.record import (
    Acknowledged,
    Connected,
    Disconnected,
    Entered,
    Event,
    History,
    Killed,
    Receipted,
    Received,
    Refused,
    Room,
    Sent,
    Target,
    User,
)

ANNA, BO, CLEO = 10_001, 10_002, 10_003
ROOM = 7


def number(index: int) -> str:
    return str(index).zfill(19)


class Script:
    """Writes histories in few words: a message `a` has the content `a`, and its clientMsgId, if it has one, is `a`."""

    def __init__(self) -> None:
        self.history = History()
        self.now = 0.0
        self.messages: dict[str, tuple[int, Target, str]] = {}

    def log_in(self, connection: str, user: int) -> None:
        self.history.connected(self.now, connection=connection, user=user)

    def enter(self, connection: str, user: int, after: int | None = None, recovered: bool | None = None) -> None:
        text = "" if after is None else number(after)
        self.history.entered(self.now, connection=connection, user=user, room=ROOM, after=text, recovered=recovered)

    def send(self, connection: str, sender: int, key: str, target: Target, *, asks: bool = True) -> None:
        self.messages[key] = sender, target, key if asks else ""
        self.history.sent(
            self.now,
            connection=connection,
            sender=sender,
            key=key,
            content=key,
            target=target,
            client_msg_id=key if asks else "",
        )

    def receipt(self, connection: str, sender: int, key: str, msg_id: int) -> None:
        self.history.receipted(self.now, connection=connection, sender=sender, client_msg_id=key, msg_id=number(msg_id))

    def refuse(self, connection: str, sender: int, key: str, code: int) -> None:
        self.history.refused(self.now, connection=connection, sender=sender, code=code, client_msg_id=key)

    def get(self, connection: str, user: int, msg_id: int, key: str, **otherwise: object) -> None:
        sender, target, _ = self.messages[key]
        event = Received(
            at=self.now,
            connection=connection,
            user=user,
            msg_id=number(msg_id),
            sender=sender,
            target=target,
            content=key,
        )
        self.history.events.append(replace(event, **otherwise))  # type: ignore[arg-type]

    def accepted(self, connection: str, sender: int, key: str, target: Target, msg_id: int) -> None:
        self.send(connection, sender, key, target)
        self.receipt(connection, sender, key, msg_id)

    def kinds(self, *, drained: bool = True) -> list[Kind]:
        return [fault.kind for fault in judge(self.history, drained=drained)]


@pytest.fixture
def script() -> Script:
    """Anna, Bo and Cleo are there, Anna and Bo in the room."""
    script = Script()
    for connection, user in (("a", ANNA), ("b", BO), ("c", CLEO)):
        script.log_in(connection, user)
    script.enter("a", ANNA)
    script.enter("b", BO)
    return script


def several(script: Script) -> tuple[list[Kind], list[Kind]]:
    """The verdict on one, and on several."""
    return (
        [fault.kind for fault in judge(script.history)],
        [fault.kind for fault in judge(script.history, several=True)],
    )


def test_what_had_no_receipt_may_be_lost_to_members_elsewhere(script: Script) -> None:
    script.log_in("c", CLEO)
    script.enter("c", CLEO)
    script.send("a", ANNA, "one", Room(ROOM), asks=False)
    script.get("b", BO, 1, "one")
    script.accepted("a", ANNA, "two", Room(ROOM), 2)
    script.get("b", BO, 2, "two")
    script.get("c", CLEO, 2, "two")
    assert several(script) == ([Kind.HOLE], [])


def test_what_has_one_may_not(script: Script) -> None:
    script.log_in("c", CLEO)
    script.enter("c", CLEO)
    script.accepted("a", ANNA, "one", Room(ROOM), 1)
    script.get("b", BO, 1, "one")
    script.accepted("a", ANNA, "two", Room(ROOM), 2)
    script.get("b", BO, 2, "two")
    script.get("c", CLEO, 2, "two")
    assert several(script) == ([Kind.HOLE], [Kind.HOLE])


def test_an_ack_that_another_instance_took_may_come_too_late(script: Script) -> None:
    script.accepted("a", ANNA, "one", User(BO), 1)
    script.get("b", BO, 1, "one")
    script.history.acknowledged(script.now, connection="b", user=BO, msg_id=number(1), confirmed=True)
    script.log_in("b2", BO)
    script.get("b2", BO, 1, "one")
    assert several(script) == ([Kind.ACKNOWLEDGED_AGAIN], [])


def test_what_was_sent_again_elsewhere_may_overtake(script: Script) -> None:
    script.send("a", ANNA, "one", User(BO), asks=False)
    script.send("a", ANNA, "two", User(BO))
    script.history.disconnected(script.now, connection="a")
    script.log_in("a2", ANNA)
    script.accepted("a2", ANNA, "two", User(BO), 1)
    script.get("b", BO, 1, "two")
    script.get("b", BO, 2, "one")
    assert several(script) == ([Kind.OUT_OF_ORDER], [])


def test_what_was_sent_once_may_not(script: Script) -> None:
    script.send("a", ANNA, "one", User(BO), asks=False)
    script.accepted("a", ANNA, "two", User(BO), 2)
    script.get("b", BO, 2, "two")
    script.get("b", BO, 1, "one")
    assert several(script) == ([Kind.OUT_OF_ORDER], [Kind.OUT_OF_ORDER])


def test_a_day_without_faults(script: Script) -> None:
    """All that is allowed: doubles, resends, refusals, a kill, a drop, catch-up."""
    history = script.history
    script.accepted("a", ANNA, "one", User(BO), 1)
    script.get("b", BO, 1, "one")
    script.now = 4.0
    script.get("b", BO, 1, "one")
    history.acknowledged(4.0, connection="b", user=BO, msg_id=number(1))
    history.acknowledged(4.0, connection="b", user=BO, msg_id=number(1), confirmed=True)
    script.send("a", ANNA, "two", Room(ROOM))
    script.refuse("a", ANNA, "two", 503)
    script.send("a", ANNA, "three", Room(ROOM), asks=False)
    script.get("b", BO, 2, "three")
    script.accepted("a", ANNA, "two", Room(ROOM), 3)
    script.get("b", BO, 3, "two")
    script.accepted("a", ANNA, "four", Room(ROOM), 4)
    history.dropped(4.0, connection="b")
    script.send("a", ANNA, "five", Room(ROOM), asks=False)
    script.get("b", BO, 5, "five")
    script.send("b", BO, "six", User(CLEO))
    script.send("b", BO, "no", User(CLEO))
    script.refuse("b", BO, "no", 507)
    history.killed(5.0)
    script.now = 6.0
    script.log_in("b2", BO)
    script.log_in("c2", CLEO)
    script.enter("b2", BO, after=3, recovered=True)
    script.get("b2", BO, 4, "four")  # five was not stored when the server was killed
    script.accepted("b2", BO, "six", User(CLEO), 6)
    script.accepted("b2", BO, "six", User(CLEO), 6)
    script.get("c2", CLEO, 6, "six")
    history.left(7.0, connection="b2")
    history.disconnected(8.0, connection="c2")
    assert judge(history) == []
    counts = history.summary()
    assert [counts[name] for name in ("sent", "messages", "resends", "doubles", "killed", "recovered")] == [
        *(10, 7, 3, 1, 1, 1)
    ]


def invented(script: Script) -> None:
    script.messages["ghost"] = ANNA, User(BO), ""
    script.get("b", BO, 1, "ghost")


def received_before_it_was_sent(script: Script) -> None:
    invented(script)
    script.send("a", ANNA, "ghost", User(BO), asks=False)


def other_content(script: Script) -> None:
    script.accepted("a", ANNA, "one", User(BO), 1)
    script.get("b", BO, 1, "one", content="more")


def other_sender(script: Script) -> None:
    script.accepted("a", ANNA, "one", User(BO), 1)
    script.get("b", BO, 1, "one", sender=CLEO)


def other_target(script: Script) -> None:
    script.accepted("a", ANNA, "one", User(BO), 1)
    script.get("b", BO, 1, "one", target=Room(ROOM))


def two_ids(script: Script) -> None:
    script.send("a", ANNA, "one", User(BO), asks=False)
    script.get("b", BO, 1, "one")
    script.get("b", BO, 2, "one")


def received_under_another_id_than_receipted(script: Script) -> None:
    script.accepted("a", ANNA, "one", User(BO), 1)
    script.get("b", BO, 2, "one")


def a_resend_with_another_receipt(script: Script) -> None:
    script.accepted("a", ANNA, "one", User(BO), 1)
    script.get("b", BO, 1, "one")
    script.accepted("a", ANNA, "one", User(BO), 2)


def shared_id(script: Script) -> None:
    for key in ("one", "two"):
        script.send("a", ANNA, key, User(BO), asks=False)
        script.get("b", BO, 1, key)
        script.now += 4


def unsent_receipt(script: Script) -> None:
    script.receipt("a", ANNA, "one", 1)


def a_receipt_that_was_not_asked_for(script: Script) -> None:
    script.send("a", ANNA, "one", User(BO), asks=False)
    script.receipt("a", ANNA, "", 1)


def refused_yet_delivered(script: Script) -> None:
    script.send("a", ANNA, "one", User(BO))
    script.refuse("a", ANNA, "one", 403)
    script.get("b", BO, 1, "one")


def refused_yet_delivered_without_a_client_id(script: Script) -> None:
    script.send("a", ANNA, "one", User(BO), asks=False)
    script.history.refused(0.0, connection="a", sender=ANNA, code=507, key="one")
    script.get("b", BO, 1, "one")


def a_second_use_of_a_client_id_delivered(script: Script) -> None:
    script.accepted("a", ANNA, "one", User(BO), 1)
    script.get("b", BO, 1, "one")
    script.send("a", ANNA, "two", User(BO), asks=False)
    event = script.history.events.pop()
    assert isinstance(event, Sent)
    script.history.events.append(replace(event, client_msg_id="one"))
    script.refuse("a", ANNA, "one", 409)
    script.get("b", BO, 2, "two")


def at_another_user(script: Script) -> None:
    script.send("a", ANNA, "one", User(BO), asks=False)
    script.get("c", CLEO, 1, "one")


def at_one_outside_the_room(script: Script) -> None:
    script.send("a", ANNA, "one", Room(ROOM), asks=False)
    script.get("c", CLEO, 1, "one")
    script.get("b", BO, 1, "one")


def echoed(script: Script) -> None:
    script.send("a", ANNA, "one", Room(ROOM), asks=False)
    script.get("b", BO, 1, "one")
    script.get("a", ANNA, 1, "one")


def twice_in_a_moment(script: Script) -> None:
    script.send("a", ANNA, "one", Room(ROOM), asks=False)
    script.get("b", BO, 1, "one")
    script.now = 3.9
    script.get("b", BO, 1, "one")


def again_after_its_ack(script: Script) -> None:
    script.send("a", ANNA, "one", User(BO), asks=False)
    script.get("b", BO, 1, "one")
    script.history.acknowledged(0.0, connection="b", user=BO, msg_id=number(1), confirmed=True)
    script.log_in("b2", BO)
    script.get("b2", BO, 1, "one")


def direct_out_of_order(script: Script) -> None:
    script.accepted("a", ANNA, "one", User(BO), 1)
    script.accepted("a", ANNA, "two", User(BO), 2)
    script.get("b", BO, 2, "two")
    script.get("b", BO, 1, "one")


def direct_out_of_order_at_the_next_login(script: Script) -> None:
    script.accepted("a", ANNA, "one", User(BO), 1)
    script.send("a", ANNA, "two", User(BO), asks=False)
    script.get("b", BO, 2, "two")
    script.log_in("b2", BO)
    script.get("b2", BO, 1, "one")


def out_of_order_after_the_resend(script: Script) -> None:
    script.send("a", ANNA, "one", User(BO))
    script.refuse("a", ANNA, "one", 503)
    script.accepted("a", ANNA, "one", User(BO), 1)
    script.accepted("a", ANNA, "two", User(BO), 2)
    script.accepted("a", ANNA, "one", User(BO), 1)  # long accepted: this one does not count
    script.get("b", BO, 2, "two")
    script.get("b", BO, 1, "one")


def in_a_room_out_of_order(script: Script) -> None:
    script.send("a", ANNA, "one", Room(ROOM), asks=False)
    script.send("a", ANNA, "two", Room(ROOM), asks=False)
    script.get("b", BO, 1, "two")
    script.get("b", BO, 2, "one")


def not_growing(script: Script) -> None:
    script.send("a", ANNA, "one", Room(ROOM), asks=False)
    script.enter("c", CLEO)
    script.send("c", CLEO, "two", Room(ROOM), asks=False)
    script.get("b", BO, 2, "two")
    script.get("b", BO, 1, "one")
    script.history.left(0.0, connection="a")
    script.history.left(0.0, connection="c")


def a_hole_among_live_messages(script: Script) -> None:
    for index, key in enumerate(("one", "two", "three"), 1):
        script.accepted("a", ANNA, key, Room(ROOM), index)
    script.get("b", BO, 1, "one")
    script.get("b", BO, 3, "three")


def a_hole_before_the_first_live_message(script: Script) -> None:
    script.accepted("a", ANNA, "one", Room(ROOM), 1)
    script.accepted("a", ANNA, "two", Room(ROOM), 2)
    script.get("b", BO, 2, "two")


def a_hole_that_only_another_receiver_shows(script: Script) -> None:
    script.enter("c", CLEO)
    for index, key in enumerate(("one", "two"), 1):
        script.send("a", ANNA, key, Room(ROOM), asks=False)
        script.get("c", CLEO, index, key)
    script.get("b", BO, 2, "two")


def a_hole_at_the_end(script: Script) -> None:
    script.accepted("a", ANNA, "one", Room(ROOM), 1)


def a_hole_after_a_drop_has_ended(script: Script) -> None:
    script.history.dropped(0.0, connection="b")
    for index, key in enumerate(("one", "two", "three", "four"), 1):
        script.accepted("a", ANNA, key, Room(ROOM), index)
    script.get("b", BO, 2, "two")
    script.get("b", BO, 4, "four")


def a_hole_in_the_catch_up(script: Script) -> None:
    script.history.disconnected(0.0, connection="b")
    for index, key in enumerate(("one", "two", "three"), 1):
        script.accepted("a", ANNA, key, Room(ROOM), index)
    script.history.killed(1.0)
    script.now = 2.0
    script.log_in("b2", BO)
    script.enter("b2", BO, after=1, recovered=True)
    script.get("b2", BO, 3, "three")


def lost(script: Script) -> None:
    script.accepted("a", ANNA, "one", User(BO), 1)


def unanswered(script: Script) -> None:
    script.accepted("a", ANNA, "one", User(BO), 1)
    script.get("b", BO, 1, "one")
    script.send("a", ANNA, "one", User(BO))


FAULTS: list[tuple[Callable[[Script], None], Kind]] = [
    (invented, Kind.INVENTED),
    (received_before_it_was_sent, Kind.INVENTED),
    (other_content, Kind.ALTERED),
    (other_sender, Kind.ALTERED),
    (other_target, Kind.ALTERED),
    (two_ids, Kind.TWO_IDS),
    (received_under_another_id_than_receipted, Kind.TWO_IDS),
    (a_resend_with_another_receipt, Kind.TWO_IDS),
    (shared_id, Kind.SHARED_ID),
    (unsent_receipt, Kind.UNSENT_RECEIPT),
    (a_receipt_that_was_not_asked_for, Kind.UNSENT_RECEIPT),
    (refused_yet_delivered, Kind.REFUSED_YET_ACCEPTED),
    (refused_yet_delivered_without_a_client_id, Kind.REFUSED_YET_ACCEPTED),
    (a_second_use_of_a_client_id_delivered, Kind.REFUSED_YET_ACCEPTED),
    (at_another_user, Kind.MISDELIVERED),
    (at_one_outside_the_room, Kind.MISDELIVERED),
    (echoed, Kind.ECHOED),
    (twice_in_a_moment, Kind.TOO_SOON),
    (again_after_its_ack, Kind.ACKNOWLEDGED_AGAIN),
    (direct_out_of_order, Kind.OUT_OF_ORDER),
    (direct_out_of_order_at_the_next_login, Kind.OUT_OF_ORDER),
    (out_of_order_after_the_resend, Kind.OUT_OF_ORDER),
    (in_a_room_out_of_order, Kind.OUT_OF_ORDER),
    (not_growing, Kind.NOT_GROWING),
    (a_hole_among_live_messages, Kind.HOLE),
    (a_hole_before_the_first_live_message, Kind.HOLE),
    (a_hole_that_only_another_receiver_shows, Kind.HOLE),
    (a_hole_at_the_end, Kind.HOLE),
    (a_hole_after_a_drop_has_ended, Kind.HOLE),
    (a_hole_in_the_catch_up, Kind.HOLE),
    (lost, Kind.LOST),
    (unanswered, Kind.UNANSWERED),
]


@pytest.mark.parametrize(("write", "kind"), FAULTS, ids=[write.__name__ for write, _ in FAULTS])
def test_a_history_with_one_fault_has_that_one(script: Script, write: Callable[[Script], None], kind: Kind) -> None:
    write(script)
    assert script.kinds() == [kind]
    assert script.kinds(drained=False) == ([] if write in {lost, unanswered, a_hole_at_the_end} else [kind])


def test_every_kind_has_its_history() -> None:
    assert {kind for _, kind in FAULTS} == set(Kind)


def test_a_message_whose_503_was_wrong_is_not_judged_by_its_place(script: Script) -> None:
    """It may have been stored, and found later."""
    script.send("a", ANNA, "one", User(BO))
    script.refuse("a", ANNA, "one", 503)
    script.send("a", ANNA, "two", User(BO), asks=False)
    script.get("b", BO, 2, "two")
    script.get("b", BO, 1, "one")
    script.receipt("a", ANNA, "one", 1)
    assert script.kinds() == []


def test_what_is_read_late_from_an_older_connection_is_no_news(script: Script) -> None:
    script.send("a", ANNA, "one", User(BO), asks=False)
    script.send("a", ANNA, "two", User(BO), asks=False)
    script.log_in("b2", BO)
    script.get("b2", BO, 2, "two")
    script.get("b", BO, 1, "one")
    assert script.kinds() == []


def test_a_receipt_of_the_second_use_of_a_client_id_whose_first_was_refused(script: Script) -> None:
    script.send("a", ANNA, "one", Room(8))
    script.refuse("a", ANNA, "one", 403)
    script.history.sent(
        0.0, connection="a", sender=ANNA, key="two", content="two", target=Room(ROOM), client_msg_id="one"
    )
    script.receipt("a", ANNA, "one", 1)
    script.history.disconnected(0.0, connection="b")
    assert script.kinds() == []


def test_asking_again_with_an_older_id_brings_older_messages_later(script: Script) -> None:
    script.history.left(0.0, connection="b")
    script.accepted("a", ANNA, "one", Room(ROOM), 1)
    script.enter("b", BO)
    script.accepted("a", ANNA, "two", Room(ROOM), 2)
    script.get("b", BO, 2, "two")
    script.enter("b", BO, after=0, recovered=True)
    script.get("b", BO, 1, "one")
    script.get("b", BO, 2, "two")
    assert script.kinds() == []


def test_after_a_kill_an_acknowledged_message_may_come_again(script: Script) -> None:
    script.send("a", ANNA, "one", User(BO), asks=False)
    script.get("b", BO, 1, "one")
    script.history.acknowledged(0.0, connection="b", user=BO, msg_id=number(1), confirmed=True)
    script.history.killed(0.0)
    script.log_in("b2", BO)
    script.get("b2", BO, 1, "one")
    assert script.kinds() == []


class Message:
    """One that the perfect server has accepted."""

    def __init__(self, msg_id: str, sent: Sent) -> None:
        self.msg_id = msg_id
        self.sent = sent


class Client:
    """A connection to the perfect server. What it has sent is on the way until the client reads it."""

    def __init__(self, name: str, user: int) -> None:
        self.name = name
        self.user = user
        self.room = 0
        self.on_the_way: list[Event] = []


class Model:
    """A perfect server, and its clients."""

    def __init__(self) -> None:
        self.history = History()
        self.now = 0.0
        self.clients: dict[int, Client] = {}
        self.rooms: dict[int, list[Message]] = {}
        self.inboxes: dict[int, list[Message]] = {ANNA: [], BO: [], CLEO: []}
        self.accepted: dict[str, Message] = {}
        self.sends: list[Sent] = []
        self.highest: dict[tuple[int, int], str] = {}
        self._count = 0

    def next(self) -> int:
        self._count += 1
        return self._count

    def log_in(self, user: int) -> Client:
        self.close(user)
        client = self.clients[user] = Client(f"connection {self.next()}", user)
        self.history.connected(self.now, connection=client.name, user=user)
        client.on_the_way += [self.copy(client, message) for message in self.inboxes[user]]
        return client

    def close(self, user: int) -> None:
        client = self.clients.pop(user, None)
        if client is not None:
            self.history.disconnected(self.now, connection=client.name)

    def enter(self, user: int, room: int, catches_up: bool) -> None:
        client = self.clients.get(user) or self.log_in(user)
        after = self.highest.get((user, room), number(0)) if catches_up else ""
        recovered = True if catches_up else None
        client.on_the_way.append(
            Entered(at=0, connection=client.name, user=user, room=room, after=after, recovered=recovered)
        )
        client.room = room
        missed = self.rooms.get(room, []) if catches_up else []
        client.on_the_way += [
            self.copy(client, each) for each in missed if each.sent.sender != user and each.msg_id > after
        ]

    def send(self, user: int, target: Target, asks: bool) -> None:
        client = self.clients.get(user) or self.log_in(user)
        name = f"message {self.next()}"
        self._send(client, name, target, name if asks else "")

    def refuse(self, user: int, room: int) -> None:
        """Takes nothing, and says 503; the client may resend."""
        client = self.clients.get(user) or self.log_in(user)
        name = f"message {self.next()}"
        self._record(client, name, Room(room), name)
        client.on_the_way.append(
            Refused(at=0, connection=client.name, sender=user, code=503, client_msg_id=name, key=None)
        )

    def resend(self, index: int) -> None:
        asking = [sent for sent in self.sends if sent.client_msg_id]
        if asking:
            sent = asking[index % len(asking)]
            client = self.clients.get(sent.sender) or self.log_in(sent.sender)
            self._send(client, sent.content, sent.target, sent.client_msg_id)

    def read(self, user: int) -> None:
        client = self.clients.get(user)
        for event in client.on_the_way if client is not None else []:
            self.history.events.append(replace(event, at=self.now))
            if isinstance(event, Received) and isinstance(event.target, Room):
                self.highest[user, event.target.id] = event.msg_id
        if client is not None:
            client.on_the_way.clear()

    def acknowledge(self, user: int) -> None:
        client = self.clients.get(user)
        if client is None:
            return
        self.read(user)
        for message in self.inboxes[user]:
            self.history.acknowledged(
                self.now, connection=client.name, user=user, msg_id=message.msg_id, confirmed=True
            )
        self.inboxes[user].clear()

    def retry(self) -> None:
        """Time passes, and what is in inboxes comes again."""
        self.now += 4
        for user, client in self.clients.items():
            self.read(user)
            client.on_the_way += [self.copy(client, message) for message in self.inboxes[user]]
        self.now += 4

    def kill(self) -> None:
        """What asked for no receipt is lost."""
        self.history.killed(self.now)
        for kept in [*self.rooms.values(), *self.inboxes.values()]:
            kept[:] = [message for message in kept if message.sent.client_msg_id]
        self.clients.clear()

    def drain(self) -> None:
        for user in (ANNA, BO, CLEO):
            self.log_in(user)
        for user in (ANNA, BO, CLEO):
            self.enter(user, ROOM, catches_up=True)
            self.read(user)

    def copy(self, client: Client, message: Message) -> Received:
        sent = message.sent
        return Received(
            at=0,
            connection=client.name,
            user=client.user,
            msg_id=message.msg_id,
            sender=sent.sender,
            target=sent.target,
            content=sent.content,
        )

    def _send(self, client: Client, name: str, target: Target, client_msg_id: str) -> None:
        if isinstance(target, Room) and client.room != target.id and name not in self.accepted:
            self.enter(client.user, target.id, catches_up=False)
        sent = self._record(client, name, target, client_msg_id)
        if name not in self.accepted:
            self._accept(sent)
        if client_msg_id:
            msg_id = self.accepted[name].msg_id
            client.on_the_way.append(
                Receipted(at=0, connection=client.name, sender=client.user, client_msg_id=client_msg_id, msg_id=msg_id)
            )

    def _record(self, client: Client, name: str, target: Target, client_msg_id: str) -> Sent:
        self.history.sent(
            self.now,
            connection=client.name,
            sender=client.user,
            key=name,
            content=name,
            target=target,
            client_msg_id=client_msg_id,
        )
        sent = self.history.events[-1]
        assert isinstance(sent, Sent)
        self.sends.append(sent)
        return sent

    def _accept(self, sent: Sent) -> None:
        message = self.accepted[sent.content] = Message(number(self.next()), sent)
        if isinstance(sent.target, User):
            self.inboxes[sent.target.id].append(message)
            receivers = [client for user, client in self.clients.items() if user == sent.target.id]
        else:
            self.rooms.setdefault(sent.target.id, []).append(message)
            members = [client for client in self.clients.values() if client.room == sent.target.id]
            receivers = [client for client in members if client.user != sent.sender]
        for client in receivers:
            client.on_the_way.append(self.copy(client, message))


users = st.sampled_from([ANNA, BO, CLEO])
rooms = st.sampled_from([ROOM, 8])
targets = st.one_of(st.builds(Room, rooms), st.builds(User, users))
steps = st.one_of(
    st.tuples(st.just(Model.send), users, targets, st.booleans()),
    st.tuples(st.just(Model.send), users, targets, st.booleans()),
    st.tuples(st.just(Model.enter), users, rooms, st.booleans()),
    st.tuples(st.just(Model.refuse), users, rooms),
    st.tuples(st.just(Model.resend), st.integers(0, 50)),
    st.tuples(st.just(Model.read), users),
    st.tuples(st.just(Model.log_in), users),
    st.tuples(st.just(Model.close), users),
    st.tuples(st.just(Model.acknowledge), users),
    st.tuples(st.just(Model.retry)),
    st.tuples(st.just(Model.kill)),
)


@st.composite
def correct_histories(draw: st.DrawFn) -> History:
    """A perfect server's; it begins so that every mutation finds something to change."""
    model = Model()
    for user in (ANNA, BO, CLEO):
        model.enter(user, ROOM, catches_up=False)
    for _ in range(3):
        model.send(ANNA, Room(ROOM), True)
        model.send(ANNA, User(BO), True)
    for user in (ANNA, BO, CLEO):
        model.read(user)
    model.acknowledge(BO)
    model.close(CLEO)
    for _ in range(3):
        model.send(ANNA, Room(ROOM), True)
    model.enter(CLEO, ROOM, catches_up=True)
    for user in (ANNA, CLEO):
        model.read(user)
    for step, *arguments in draw(st.lists(steps, max_size=40)):
        model.now += draw(st.sampled_from([0.0, 0.5, 5.0]))
        step(model, *arguments)
    model.drain()
    return model.history


Pick = Callable[[list[int]], int]
Mutation = Callable[[list[Event], Pick], None]


def places(events: list[Event], wanted: Callable[[Received], bool] = bool) -> list[int]:
    return [index for index, event in enumerate(events) if isinstance(event, Received) and wanted(event)]


def is_direct(event: Received) -> bool:
    return isinstance(event.target, User)


def is_in_room(event: Received) -> bool:
    return isinstance(event.target, Room)


def received_at(events: list[Event], index: int) -> Received:
    event = events[index]
    assert isinstance(event, Received)
    return event


def change_a_sender(events: list[Event], pick: Pick) -> None:
    index = pick(places(events))
    events[index] = replace(received_at(events, index), sender=99_999)


def change_a_target(events: list[Event], pick: Pick) -> None:
    index = pick(places(events))
    events[index] = replace(received_at(events, index), target=Room(99_999))


def change_a_content(events: list[Event], pick: Pick) -> None:
    """Of one with a receipt: else nobody could tell what it was."""
    receipted = {event.msg_id for event in events if isinstance(event, Receipted)}
    index = pick(places(events, lambda event: event.msg_id in receipted))
    events[index] = replace(received_at(events, index), content="changed")


def lose_a_direct_message(events: list[Event], pick: Pick) -> None:
    receipted = {event.msg_id for event in events if isinstance(event, Receipted)}
    msg_id = received_at(
        events, pick(places(events, lambda event: is_direct(event) and event.msg_id in receipted))
    ).msg_id
    events[:] = [event for event in events if not (isinstance(event, Received) and event.msg_id == msg_id)]


def deliver_under_another_id(events: list[Event], pick: Pick) -> None:
    index = pick(places(events))
    events.insert(index + 1, replace(received_at(events, index), msg_id=number(10**9)))


def deliver_twice(events: list[Event], pick: Pick) -> None:
    index = pick(places(events))
    events.insert(index + 1, events[index])


def deliver_to_another_user(events: list[Event], pick: Pick) -> None:
    event = received_at(events, pick(places(events, is_direct)))
    stranger = next(user for user in (ANNA, BO, CLEO) if user not in {event.user, event.sender})
    events.append(replace(event, at=1e9, connection="another", user=stranger))


def deliver_outside_the_room(events: list[Event], pick: Pick) -> None:
    event = received_at(events, pick(places(events, is_in_room)))
    events.append(replace(event, at=1e9, connection="another"))


def echo(events: list[Event], pick: Pick) -> None:
    event = received_at(events, pick(places(events, is_in_room)))
    events.append(replace(event, at=1e9, connection="another", user=event.sender))


def deliver_after_the_ack(events: list[Event], pick: Pick) -> None:
    acks = {(event.user, event.msg_id) for event in events if isinstance(event, Acknowledged)}
    index = pick(places(events, lambda event: is_direct(event) and (event.user, event.msg_id) in acks))
    event = received_at(events, index)
    last = max(event.at for event in events)
    ack = Acknowledged(at=last, connection=event.connection, user=event.user, msg_id=event.msg_id, confirmed=True)
    connected = Connected(at=last, connection="later", user=event.user)
    events.extend([ack, connected, replace(event, at=last, connection="later")])


def share_an_id(events: list[Event], pick: Pick) -> None:
    index = pick(places(events))
    event = received_at(events, index)
    others = places(events, lambda other: other.content != event.content)
    events[index] = replace(event, msg_id=received_at(events, pick(others)).msg_id)


def refuse_what_was_accepted(events: list[Event], pick: Pick) -> None:
    received = {event.content for event in events if isinstance(event, Received)}
    sends = [index for index, event in enumerate(events) if isinstance(event, Sent) and event.content in received]
    sent = events[pick(sends)]
    assert isinstance(sent, Sent)
    events += [
        Refused(
            at=1e9,
            connection=event.connection,
            sender=sent.sender,
            code=404,
            client_msg_id=sent.client_msg_id,
            key=sent.key,
        )
        for event in events
        if isinstance(event, Sent) and event.key == sent.key
    ]


def change_a_receipt(events: list[Event], pick: Pick) -> None:
    index = pick([index for index, event in enumerate(events) if isinstance(event, Receipted)])
    events.append(replace(events[index], at=1e9, msg_id=number(10**9)))  # type: ignore[call-arg]


def receipt_what_was_not_sent(events: list[Event], pick: Pick) -> None:
    index = pick([index for index, event in enumerate(events) if isinstance(event, Receipted)])
    events.append(replace(events[index], client_msg_id="never sent"))  # type: ignore[call-arg]


def forget_a_send(events: list[Event], pick: Pick) -> None:
    key = received_at(events, pick(places(events))).content
    events[:] = [event for event in events if not (isinstance(event, Sent) and event.key == key)]


def leave_a_send_unanswered(events: list[Event], pick: Pick) -> None:
    still_open = {event.connection for event in events if isinstance(event, Connected)}
    still_open -= {event.connection for event in events if isinstance(event, Disconnected)}
    last = max(index for index, event in enumerate(events) if isinstance(event, Killed | Disconnected | Connected))
    connection = next(event for event in events[last:] if isinstance(event, Connected))
    assert connection.connection in still_open
    sent = Sent(
        at=1e9,
        connection=connection.connection,
        sender=connection.user,
        key="new",
        content="new",
        target=User(BO),
        client_msg_id="new",
    )
    events.append(sent)


def swap_two_direct_messages(events: list[Event], pick: Pick) -> None:
    """Of the first three: receipted at once, and received by Bo one after the other."""
    first = [index for index in places(events, is_direct) if received_at(events, index).user == BO][:3]
    earlier = pick(first[:2])
    later = first[first.index(earlier) + 1]
    events[earlier], events[later] = events[later], events[earlier]


def swap_two_room_messages(events: list[Event], pick: Pick) -> None:
    first = [index for index in places(events, is_in_room) if received_at(events, index).user == CLEO][:3]
    earlier = pick(first[:2])
    later = first[first.index(earlier) + 1]
    events[earlier], events[later] = events[later], events[earlier]


def leave_a_hole(events: list[Event], pick: Pick) -> None:
    """One message, gone from Cleo's first catch-up, though others came after it."""
    entries = [event for event in events if isinstance(event, Entered) and event.user == CLEO and event.recovered]
    connection = entries[0].connection
    caught_up = places(events, lambda event: is_in_room(event) and event.connection == connection)
    gone = events[pick(caught_up[:2])]
    assert isinstance(gone, Received)
    events[:] = [
        event
        for event in events
        if not (isinstance(event, Received) and (event.connection, event.msg_id) == (connection, gone.msg_id))
    ]


MUTATIONS: list[tuple[Mutation, Kind]] = [
    (lose_a_direct_message, Kind.LOST),
    (deliver_under_another_id, Kind.TWO_IDS),
    (change_a_receipt, Kind.TWO_IDS),
    (deliver_twice, Kind.TOO_SOON),
    (deliver_to_another_user, Kind.MISDELIVERED),
    (deliver_outside_the_room, Kind.MISDELIVERED),
    (echo, Kind.ECHOED),
    (deliver_after_the_ack, Kind.ACKNOWLEDGED_AGAIN),
    (share_an_id, Kind.SHARED_ID),
    (refuse_what_was_accepted, Kind.REFUSED_YET_ACCEPTED),
    (receipt_what_was_not_sent, Kind.UNSENT_RECEIPT),
    (forget_a_send, Kind.INVENTED),
    (leave_a_send_unanswered, Kind.UNANSWERED),
    (swap_two_direct_messages, Kind.OUT_OF_ORDER),
    (swap_two_room_messages, Kind.OUT_OF_ORDER),
    (swap_two_room_messages, Kind.NOT_GROWING),
    (leave_a_hole, Kind.HOLE),
    (change_a_sender, Kind.ALTERED),
    (change_a_target, Kind.ALTERED),
    (change_a_content, Kind.ALTERED),
]


@pytest.mark.property
@given(correct_histories())
def test_a_perfect_server_has_no_faults(history: History) -> None:
    assert judge(history) == []


@pytest.mark.property
@pytest.mark.parametrize(("mutate", "kind"), MUTATIONS)
@given(history=correct_histories(), data=st.data())
def test_what_is_changed_is_noticed(mutate: Mutation, kind: Kind, history: History, data: st.DataObject) -> None:
    mutate(history.events, lambda found: data.draw(st.sampled_from(found)))
    assert kind in {fault.kind for fault in judge(history)}
