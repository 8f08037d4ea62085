from __future__ import annotations

import json

import pytest

from history.record import Acknowledged, History, Killed, Room, Sent, User

ANNA, BO, CLEO = 10_001, 10_002, 10_003


def send(history: History, key: str, to: int, content: str = "", client_msg_id: str = "") -> None:
    history.sent(
        0.0,
        connection="a",
        sender=ANNA,
        key=key,
        content=content or key,
        target=User(to),
        client_msg_id=client_msg_id,
    )


def test_the_caller_may_not_confuse_messages() -> None:
    history = History()
    send(history, "one", BO, client_msg_id="one")
    with pytest.raises(ValueError, match="do not name one message"):
        send(history, "one", CLEO, client_msg_id="one")
    with pytest.raises(ValueError, match="do not name one message"):
        send(history, "other", BO, content="one")
    send(history, "two", BO)
    with pytest.raises(ValueError, match="cannot be resent"):
        send(history, "two", BO)
    assert [event.key for event in history.events if isinstance(event, Sent)] == ["one", "two"]


def test_it_can_be_looked_at() -> None:
    history = History()
    send(history, "你好", BO)
    history.entered(1.0, connection=("b", 1), user=BO, room=7, after="", recovered=True)
    history.killed(1.5)
    lines = history.to_jsonl().splitlines()
    assert "你好" in lines[0]
    assert json.loads(lines[0])["target"] == {"user": BO}
    assert json.loads(lines[1])["connection"] == ["b", 1]
    assert json.loads(lines[2]) == {"event": "killed", "at": 1.5}


def test_it_can_go_on_from_events_of_before() -> None:
    first = History()
    first.acknowledged(0.0, connection="b", user=BO, msg_id="1", confirmed=True)
    again = History(first.events)
    again.killed(1.0)
    assert [type(event) for event in again.events] == [Acknowledged, Killed]
    assert len(first.events) == 1


def test_it_can_be_counted() -> None:
    history = History()
    send(history, "one", BO, client_msg_id="one")
    send(history, "one", BO, client_msg_id="one")
    history.entered(0.0, connection="b", user=BO, room=7, recovered=True)
    history.entered(0.0, connection="b", user=BO, room=7, recovered=False)
    for connection in ("b", "b2"):
        history.received(0.0, connection=connection, user=BO, msg_id="1", sender=ANNA, target=Room(7), content="one")
    summary = history.summary()
    assert {name: count for name, count in summary.items() if count} == {
        "sent": 2,
        "entered": 2,
        "received": 2,
        "messages": 1,
        "resends": 1,
        "doubles": 1,
        "recovered": 1,
    }
    assert summary["killed"] == 0
