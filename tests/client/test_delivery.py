"""Whatever happens on the way, each message is stored once, and its call knows it."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from client.fakes import FakeServer, FakeSession, error_packet, receipt_packet
from qiyu.client import Client


class FaultyServer(FakeServer):
    """What happens to each message that comes is drawn; after that, all goes well."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__()
        self.contents: list[str] = []
        self._faults = faults

    def _take(self, session: FakeSession, body: Any) -> None:
        fault = self._faults.pop() if self._faults else ""
        client_msg_id = body["clientMsgId"]
        if fault == "lost on the way":
            session.hang_up()
            return
        if fault == "refused":
            session.push(error_packet(503, "not now", clientMsgId=client_msg_id))
            return
        if client_msg_id not in self.stored:
            self.stored[client_msg_id] = str(len(self.stored))
            self.contents.append(msgspec.json.decode(body["data"])["content"])
        if fault == "receipt lost":
            session.hang_up()
            return
        if fault == "refused and stored":
            session.push(error_packet(503, "unknown", clientMsgId=client_msg_id))
        session.push(receipt_packet(client_msg_id, self.stored[client_msg_id]))


async def send_all(server: FakeServer, contents: list[str], pauses: list[float]) -> dict[str, str]:
    receipts: dict[str, str] = {}

    async def send(client: Client, content: str) -> None:
        receipts[content] = await client.send_room(content)

    jitter = random.Random(0).random
    async with (
        server.client(room_id=1, receipt_seconds=600, unreceipted_messages=8, jitter=jitter) as client,
        trio.open_nursery() as nursery,
    ):
        for content, pause in zip(contents, pauses, strict=True):
            nursery.start_soon(send, client, content)
            await wait_all_tasks_blocked()
            await trio.sleep(pause)
    return receipts


FAULTS = ["", "lost on the way", "receipt lost", "refused", "refused and stored"]
PAUSES = st.lists(st.sampled_from([0.0, 0.0, 0.3, 2.0]), min_size=1, max_size=20)


@pytest.mark.property
@given(st.lists(st.sampled_from(FAULTS), max_size=30), PAUSES)
def test_each_message_is_stored_once_and_each_call_has_its_msg_id(faults: list[str], pauses: list[float]) -> None:
    """Invariant: after lost connections, lost receipts and refusals that pass, calls and stored messages agree."""
    server = FaultyServer(faults)
    contents = [str(number) for number in range(len(pauses))]
    receipts = trio.run(send_all, server, contents, pauses, clock=MockClock(autojump_threshold=0))
    assert receipts == {content: str(number) for number, content in enumerate(server.contents)}
    assert sorted(server.contents, key=int) == contents


@pytest.mark.property
@given(st.lists(st.sampled_from(["", "lost on the way", "receipt lost"]), max_size=30), PAUSES)
def test_lost_connections_change_no_order(faults: list[str], pauses: list[float]) -> None:
    """Invariant: messages are stored in the order of their calls unless one was refused."""
    server = FaultyServer(faults)
    contents = [str(number) for number in range(len(pauses))]
    trio.run(send_all, server, contents, pauses, clock=MockClock(autojump_threshold=0))
    assert server.contents == contents
