from __future__ import annotations

import pytest

from harness import (
    ACK,
    BIZ,
    ROOM_CHAT,
    Harness,
    TcpClient,
    error_of,
    in_flight_of,
    owing,
)


@pytest.fixture
def receiver() -> TcpClient:
    """Whoever has five messages to acknowledge."""
    harness = Harness()
    receiver, sender = harness.log_in(10_000, room=7), harness.log_in(10_001, room=7)
    for _ in range(5):
        sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7})
    return receiver


def waiting(peer: TcpClient) -> list[str]:
    return list(in_flight_of(peer.session) or ())


def test_one(receiver: TcpClient) -> None:
    ids = [packet.body["msgId"] for packet in receiver.receive()]
    assert waiting(receiver) == ids
    publication = in_flight_of(receiver.session)[ids[1]]
    receiver.send(ACK, msgId=ids[1])
    assert owing(publication, receiver.session) == [False]
    assert waiting(receiver) == [ids[0], *ids[2:]]
    assert receiver.receive() == []
    assert receiver.harness.metrics.deliveries_acknowledged == 1


def test_many_at_once_with_doubles_and_strangers(receiver: TcpClient) -> None:
    ids = waiting(receiver)
    receiver.send(ACK, msgId=ids[0], data=[ids[0], ids[4], "nonsense", "", ids[4]])
    assert waiting(receiver) == ids[1:4]
    receiver.send(ACK, data=ids)
    assert waiting(receiver) == []
    receiver.send(ACK, msgId=ids[0], data=ids)
    assert receiver.harness.metrics.deliveries_acknowledged == 5
    assert receiver.harness.node.in_flight.deliveries == 0


def test_nothing_in_particular(receiver: TcpClient) -> None:
    receiver.write(receiver.frame(ACK, b"{}"))
    receiver.send(ACK, msgId=None, data="")
    assert len(waiting(receiver)) == 5


@pytest.mark.parametrize("data", ["{}", "[1]", "true", "["])
def test_what_is_no_list_of_ids(receiver: TcpClient, data: str) -> None:
    ids = [packet.body["msgId"] for packet in receiver.receive()]
    assert error_of(receiver.answer(ACK, msgId=ids[0], data=data)) == 400
    assert waiting(receiver) == ids
    assert receiver.harness.node.in_flight.deliveries == 5


def test_with_nothing_in_flight() -> None:
    peer = Harness().log_in(10_000)
    peer.send(ACK, msgId="1")
    assert peer.receive() == []
    assert error_of(peer.answer(ACK, data="[1]")) == 400


def test_somebody_elses_message(receiver: TcpClient) -> None:
    stranger = receiver.harness.log_in(10_002, room=7)
    stranger.send(ACK, msgId=waiting(receiver)[0])
    assert len(waiting(receiver)) == 5
