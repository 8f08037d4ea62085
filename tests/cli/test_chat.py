"""`qiyu chat`, between two pipes and a server of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked
from typer.testing import CliRunner

from client.fakes import FakeServer, chat_packet, error_packet, logout_packet, packet_of, receipt_packet
from qiyu.__main__ import cli
from qiyu.cli import chat
from qiyu.cli.chat import Conversation
from qiyu.cli.pipe import LINE_BYTES, Lines, Pipe, Unreadable
from qiyu.client import Client, ConnectFailed
from qiyu.protocol.packet import MsgCode


class Terminal:
    """The two ends of the pipes that the conversation does not have."""

    def __init__(self) -> None:
        self.stdin, self._input = os.pipe()
        self._output, self.stdout = os.pipe()
        self._open = {self.stdin, self._input, self._output, self.stdout}

    def type(self, text: str | bytes) -> None:
        os.write(self._input, text.encode() if isinstance(text, str) else text)

    def end_of_input(self) -> None:
        self._close(self._input)

    def stop_reading(self) -> None:
        self._close(self._output)

    def lines(self) -> list[str]:
        self._close(self.stdout)
        with os.fdopen(self._output, encoding="utf-8") as output:
            self._open.discard(self._output)
            return output.read().splitlines()

    def close(self) -> None:
        for fd in list(self._open):
            self._close(fd)

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.discard(fd)
            os.close(fd)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setattr(chat, "PACE_SECONDS", 0)
    ends = Terminal()
    yield ends
    ends.close()


async def hold(
    terminal: Terminal,
    server: FakeServer,
    *,
    to: int | None = None,
    room: int | None = 1,
    stay: bool = False,
    **options: Any,
) -> int:
    with trio.fail_after(20):
        conversation = Conversation(to, Pipe(terminal.stdin, terminal.stdout), stay=stay)
        return await conversation.hold(server.client(room_id=room, **options))


@asynccontextmanager
async def holding(
    terminal: Terminal, server: FakeServer, *, stay: bool = True, **options: Any
) -> AsyncIterator[list[int]]:
    """Around what happens while the conversation goes on; then its exit status is in the list."""
    status: list[int] = []

    async def run() -> None:
        status.append(await hold(terminal, server, stay=stay, **options))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        while not server.sessions or MsgCode.ROOM not in server.session.codes():
            await trio.lowlevel.checkpoint()
        yield status


async def test_the_input_is_said_and_then_it_leaves(terminal: Terminal) -> None:
    server = FakeServer()
    terminal.type("one\r\n\n两\nno end")
    terminal.end_of_input()
    assert await hold(terminal, server) == 0
    assert server.session.said() == ["one", "两", "no end"]
    assert server.session.codes()[-1] == MsgCode.LOGOUT


async def test_to_one_user(terminal: Terminal) -> None:
    server = FakeServer()
    terminal.type("psst\n")
    terminal.end_of_input()
    assert await hold(terminal, server, to=10002, room=None) == 0
    assert server.session.said() == ["psst"]
    assert server.session.room_id is None


async def test_what_comes_is_printed(terminal: Terminal) -> None:
    server = FakeServer()
    async with holding(terminal, server) as status:
        terminal.end_of_input()
        server.session.push(chat_packet(1, "one"), packet_of(MsgCode.BIZ, bizCode=5557, data={"event": "enter"}))
        server.session.push(chat_packet(2, "two"), logout_packet("replaced", reconnect=False))
    assert status == [1]
    assert terminal.lines() == ["10002 (ann): one", "10002 (ann): two"]


async def test_a_kick_ends_it_though_nothing_is_typed(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    server = FakeServer()
    async with holding(terminal, server, stay=False) as status:
        await wait_all_tasks_blocked()
        server.session.push(logout_packet("banned", reconnect=False))
    assert status == [1]
    assert capsys.readouterr().err == "* the server ended the session: banned\n"


@pytest.mark.parametrize(("signum", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_it_politely_though_nothing_is_typed(
    terminal: Terminal, signum: int, expected: int
) -> None:
    server = FakeServer()
    async with holding(terminal, server, stay=False) as status:
        await wait_all_tasks_blocked()
        os.kill(os.getpid(), signum)
    assert status == [expected]
    assert server.session.codes()[-1] == MsgCode.LOGOUT


async def test_when_nobody_reads_the_output_it_leaves(terminal: Terminal) -> None:
    server = FakeServer()
    async with holding(terminal, server) as status:
        terminal.stop_reading()
        server.session.push(chat_packet(1, "one"))
    assert status == [0]
    assert server.session.codes()[-1] == MsgCode.LOGOUT


async def test_a_refused_message_is_in_the_exit_status(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    server = FakeServer()
    terminal.end_of_input()
    async with holding(terminal, server) as status:
        server.session.push(error_packet(403, "muted\x1b"), logout_packet("replaced", reconnect=False))
    assert status == [1]
    assert capsys.readouterr().err.splitlines()[0] == r"* muted\x1b (403)"


async def test_a_line_that_is_refused_is_named(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    server = FakeServer()
    server.refusals.extend([None, (403, "muted\x1b"), (400, "too long")])
    lines = ["one", "two", "3" * 81, "four"]
    terminal.type("\n".join(lines))
    terminal.end_of_input()
    assert await hold(terminal, server) == 1
    assert server.session.said() == lines
    errors = [r"* refused: muted\x1b (403): two", f"* refused: too long (400): {'3' * 80}…"]
    assert sorted(capsys.readouterr().err.splitlines()) == sorted(errors)


async def test_a_line_without_a_receipt_is_named(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.BIZ)
    terminal.type("one\n")
    terminal.end_of_input()
    assert await hold(terminal, server, receipt_seconds=0.01) == 1
    assert capsys.readouterr().err == "* no receipt within 0.01 s; it may have been stored: one\n"
    assert server.session.codes()[-1] == MsgCode.LOGOUT


async def test_lines_that_are_typed_quickly_do_not_wait_for_receipts_and_stay_in_order(terminal: Terminal) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.BIZ)
    lines = [str(number) for number in range(200)]
    terminal.type("\n".join(lines))
    terminal.end_of_input()
    async with holding(terminal, server, stay=False) as status:
        while len(server.session.messages()) < len(lines):
            await trio.lowlevel.checkpoint()
        assert server.session.said() == lines
        assert MsgCode.LOGOUT not in server.session.codes()
        server.ignored.clear()
        server.session.push(*[receipt_packet(each, "1") for each in server.session.client_msg_ids()])
    assert status == [0]


async def test_lines_that_a_kick_leaves_without_a_receipt_are_named(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.BIZ)
    terminal.type("one\ntwo\n")
    async with holding(terminal, server) as status:
        while len(server.session.messages()) < 2:
            await trio.lowlevel.checkpoint()
        server.session.push(logout_packet("replaced", reconnect=False))
    assert status == [1]
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "* the server ended the session: replaced",
        "* the server ended the session: replaced; it may have been stored: one",
        "* the server ended the session: replaced; it may have been stored: two",
    ]


async def test_messages_that_were_missed_are_told_and_are_no_failure(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    server = FakeServer()
    server.recovered = False
    async with holding(terminal, server, stay=False, jitter=lambda: 0.0) as status:
        server.session.push(chat_packet(1, "one"))
        await wait_all_tasks_blocked(0.05)
        server.catch_up = [chat_packet(500, "two")]
        server.session.hang_up()
        while len(server.sessions) < 2 or MsgCode.ROOM not in server.session.codes():
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked(0.05)
        terminal.end_of_input()
    assert status == [0]
    assert capsys.readouterr().err == "* messages were missed while disconnected\n"
    assert terminal.lines() == ["10002 (ann): one", "10002 (ann): two"]


async def test_messages_that_were_dropped_are_told_and_are_no_failure(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    server = FakeServer()
    async with holding(terminal, server, stay=False) as status:
        server.session.push(error_packet(206, "12 messages were dropped"))
        await wait_all_tasks_blocked()
        terminal.end_of_input()
    assert status == [0]
    assert capsys.readouterr().err == "* 12 messages were dropped (206)\n"


async def test_no_server_is_one_line(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    server = FakeServer()
    server.connect_error = ConnectFailed("cannot connect to 127.0.0.1:1: Connection refused")
    assert await hold(terminal, server) == 1
    assert capsys.readouterr().err == "* cannot connect to 127.0.0.1:1: Connection refused\n"


async def test_a_logout_without_an_answer_is_in_the_exit_status(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.LOGOUT)
    terminal.end_of_input()
    assert await hold(terminal, server, logout_seconds=0.01) == 1
    assert "did not answer the logout" in capsys.readouterr().err


async def test_a_line_that_cannot_be_sent_is_named(
    terminal: Terminal, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave_first(client: Client, content: str, *, original: Callable[..., object] = Client.send_room) -> None:
        await client.leave_room()
        await original(client, content)  # type: ignore[misc]

    monkeypatch.setattr(Client, "send_room", leave_first)
    server = FakeServer()
    terminal.type("hello\n")
    terminal.end_of_input()
    assert await hold(terminal, server) == 1
    assert capsys.readouterr().err == "* not sent: not in a room: enter one first: hello\n"


@pytest.mark.property
@given(
    text=st.text(st.characters(exclude_characters="\r", codec="utf-8"), max_size=50),
    cuts=st.lists(st.integers(0, 200)),
)
def test_lines_are_the_same_however_they_come(text: str, cuts: list[int]) -> None:
    """Invariant: whatever the portions, the lines are those of the text, without their ends and the empty ones."""
    data = text.encode()
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    portions = [data[start:end] for start, end in pairwise(places)]
    assert _lines_of(portions) == [line for line in text.split("\n") if line]


def test_a_line_without_an_end_is_cut() -> None:
    assert [len(line) for line in map(str, _lines_of([b"x" * LINE_BYTES, b"y" * 10]))] == [LINE_BYTES, 10]


def test_input_that_is_no_utf8_is_named_and_the_rest_is_read() -> None:
    assert _lines_of([b"one\na\xffb\ntwo\n\xe4\xbd"]) == [
        "one",
        Unreadable("line 2, byte 2 is 0xff: expected UTF-8"),
        "two",
        Unreadable("line 4, byte 1 is 0xe4: expected UTF-8"),
    ]


@pytest.mark.parametrize("char", ["é", "两", "👨"])
@pytest.mark.parametrize("before", range(4))
def test_a_long_line_is_cut_between_characters(char: str, before: int) -> None:
    text = "x" * (LINE_BYTES - before) + char * 3
    read = _lines_of([text.encode()])
    assert all(isinstance(part, str) for part in read)
    assert "".join(map(str, read)) == text
    assert len(read) == 2


def test_a_byte_of_a_line_that_was_cut_is_counted_from_its_beginning() -> None:
    assert _lines_of([b"x" * (LINE_BYTES + 5) + b"\xff\n"]) == [
        "x" * LINE_BYTES,
        Unreadable(f"line 1, byte {LINE_BYTES + 6} is 0xff: expected UTF-8"),
    ]


async def test_a_line_that_cannot_be_read_is_in_the_exit_status(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    server = FakeServer()
    terminal.type(b"one\n\xff\ntwo\n")
    terminal.end_of_input()
    assert await hold(terminal, server) == 1
    assert server.session.said() == ["one", "two"]
    assert capsys.readouterr().err == "* not sent: line 2, byte 1 is 0xff: expected UTF-8\n"


def test_an_input_that_was_closed_from_the_start_is_an_empty_one() -> None:
    async def main() -> list[str | Unreadable]:
        return [line async for line in Lines(-1)]

    assert trio.run(main) == []


def _lines_of(portions: list[bytes]) -> list[str | Unreadable]:
    """What comes of input that arrives in these portions."""

    async def main() -> list[str | Unreadable]:
        read = []
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                for portion in portions:
                    await trio.to_thread.run_sync(os.write, writer, portion)
                os.close(writer)

            nursery.start_soon(write)
            async for line in Lines(stdin):
                read.append(line)  # noqa: PERF401  # while the other task writes
        return read

    stdin, writer = os.pipe()
    try:
        return trio.run(main)
    finally:
        os.close(stdin)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs `qiyu chat`; the exit status, and what it said on stderr."""
    monkeypatch.setenv("QIYU_DATA__DIR", str(tmp_path))
    monkeypatch.setenv("QIYU_AUTH__SECRET", "a secret for tests alone")

    def invoke(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["chat", *arguments])
        return result.exit_code, result.stderr

    return invoke


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--user 10001", "one of --room and --to"),
        ("--user 10001 --room 1 --to 10002", "one of --room and --to"),
        ("--user 10001 --room 1 --token t --name n", "--name"),
        ("--user 5 --room 1", "--user"),
        ("--room 1", "--user"),
        ("--user 10001 --room 0", "--room"),
        ("--user 10001 --room 1 --host a/b", "--host"),
        ("--user 10001 --room 1 --url http://127.0.0.1", "--url"),
        ("--user 10001 --room 1 --url ws://127.0.0.1 --ws", "--url"),
        ("--user 10001 --room 1 --url ws://127.0.0.1 --port 1", "--url"),
    ],
)
def test_bad_options(run: Callable[..., tuple[int, str]], arguments: str, told: str) -> None:
    status, stderr = run(*arguments.split())
    assert status == 2
    assert told in stderr


@pytest.mark.parametrize("transport", [[], ["--ws"]])
def test_nobody_listens(run: Callable[..., tuple[int, str]], transport: list[str]) -> None:
    status, stderr = run("--user", "10001", "--room", "1", "--port", "1", *transport)
    assert (status, stderr) == (1, "* cannot connect to 127.0.0.1:1: Connection refused\n")


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1/im", "wss://127.0.0.1:1", "tcp://127.0.0.1:1"])
def test_nobody_listens_at_a_whole_address(run: Callable[..., tuple[int, str]], url: str) -> None:
    status, stderr = run("--user", "10001", "--room", "1", "--url", url)
    assert (status, stderr) == (1, "* cannot connect to 127.0.0.1:1: Connection refused\n")
