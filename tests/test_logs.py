from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from qiyu import logs
from qiyu.logs import MASK, configure_logging, mask_tokens, reset_logging, set_level
from qiyu.services.tokens import Tokens

TOKEN = Tokens("a secret of the tests", 300).issue(10001, nickname="小鱼", now_ms=1_750_000_000_000)
SIGNATURE = TOKEN.partition("%")[0][-43:]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _undo() -> Iterator[None]:
    yield
    reset_logging()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_is_one_object_a_line_with_a_utc_time() -> None:
    stream = io.StringIO()
    configure_logging("info", "auto", stream)
    structlog.get_logger("qiyu.hub").info("entered", room_id=7, nickname="a\nb")
    [line] = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("timestamp"))
    assert line == {
        "event": "entered",
        "level": "info",
        "logger": "qiyu.hub",
        "room_id": 7,
        "nickname": "a\nb",
    }


@pytest.mark.parametrize(
    ("format_", "stream", "is_human", "has_colors"),
    [
        ("auto", Terminal, True, True),
        ("auto", io.StringIO, False, False),
        ("human", io.StringIO, True, False),
        ("human", Terminal, True, True),
        ("json", Terminal, False, False),
    ],
)
def test_where_it_is_written_for_people(
    monkeypatch: pytest.MonkeyPatch,
    format_: Any,
    stream: type[io.StringIO],
    is_human: bool,
    has_colors: bool,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    written = stream()
    configure_logging("info", format_, written)
    structlog.get_logger().info("hello")
    assert written.getvalue().startswith("{") is not is_human
    assert ("\x1b[" in written.getvalue()) is has_colors


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configure_logging("info", "auto", stream)
    structlog.get_logger().info("hello")
    assert "hello" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
@pytest.mark.parametrize("get_logger", [structlog.get_logger, logging.getLogger])
def test_levels(level: Any, written: list[str], get_logger: Any) -> None:
    stream = io.StringIO()
    configure_logging(level, "json", stream)
    for name in ("debug", "info", "warning", "error"):
        getattr(get_logger("x"), name)("hello")
    if get_logger is logging.getLogger:
        written = [each for each in written if each != "debug"]  # what libraries say to those who debug them
    assert [line["level"] for line in lines(stream)] == written


def test_libraries_go_through_the_same_chain() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    logging.getLogger("hypercorn.error").info("Running on %s", "http://127.0.0.1:8080")
    [line] = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == (
        "Running on http://127.0.0.1:8080",
        "hypercorn.error",
        "info",
    )


def test_the_latest_call_counts_for_loggers_got_before_it() -> None:
    first, second = io.StringIO(), io.StringIO()
    log = structlog.get_logger("early")
    configure_logging("info", "json", first)
    log.info("one")
    configure_logging("error", "json", second)
    log.info("too little")
    log.error("two")
    logging.getLogger("library").error("three")
    assert [line["event"] for line in lines(first)] == ["one"]
    assert [line["event"] for line in lines(second)] == ["two", "three"]


def test_other_handlers_are_left_alone() -> None:
    other = logging.NullHandler()
    root = logging.getLogger()
    root.addHandler(other)
    try:
        before = root.handlers[:]
        configure_logging("info", "json", io.StringIO())
        assert len(root.handlers) == len(before) + 1
        reset_logging()
        assert root.handlers == before
    finally:
        root.removeHandler(other)


def test_stderr_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    structlog.get_logger().info("hello")
    assert '"hello"' in capsys.readouterr().err


def test_values_named_like_secrets_are_masked() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    structlog.get_logger().info(
        "hello",
        token="t1",
        Authorization="Bearer t2",
        request={"headers": [{"Cookie": "t3"}, ("a", {"db_password": "t4"})], 5: "five"},
        qytk=b"t5",
        token_seconds=300,
        has_secret=True,
        secret=None,
    )
    [line] = lines(stream)
    assert not re.search(r"t[1-5]", stream.getvalue())
    assert line["request"] == {"headers": [{"Cookie": MASK}, ["a", {"db_password": MASK}]], "5": "five"}
    assert (line["token_seconds"], line["has_secret"], line["secret"]) == (300, True, None)


def test_a_container_that_contains_itself_is_cut_off() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    loop: dict[str, Any] = {}
    loop["loop"] = [loop]
    structlog.get_logger().info("hello", loop=loop)
    assert "…" in json.dumps(lines(stream), ensure_ascii=False)


def fail(text: str) -> None:
    raise ValueError(f"line one\n{text} and\x1b[2J")


class Carrier:
    def __repr__(self) -> str:
        return f"Carrier({TOKEN!r})"


@pytest.mark.parametrize("stream_type", [io.StringIO, Terminal])
@pytest.mark.parametrize("format_", ["human", "json"])
def test_a_login_token_is_masked_wherever_it_turns_up(stream_type: type[io.StringIO], format_: Any) -> None:
    stream = stream_type()
    configure_logging("info", format_, stream)
    log = structlog.get_logger("x")
    escaped = TOKEN.replace("%", "%25")
    log.info("GET %s", f"/{escaped}/10001/1001/7", value=TOKEN, nested=[{"a": (TOKEN, {TOKEN: 1})}], carrier=Carrier())
    logging.getLogger("library").warning("got %s and %r", TOKEN, Carrier(), stack_info=True)
    try:
        secret_local = TOKEN
        fail(secret_local)
    except ValueError as error:
        log.exception("failed", error=error)
        logging.getLogger("library").exception("failed")
    text = stream.getvalue()
    assert text.count("Traceback") == 2
    assert "ValueError: line one" in text
    assert SIGNATURE not in text
    assert TOKEN[:30] not in text
    assert text.count(MASK) >= 8
    assert "\x1b[2J" not in text
    if format_ == "json":
        assert len(lines(stream)) == 4  # what is left is still JSON


def test_control_characters_do_not_reach_a_terminal() -> None:
    stream = io.StringIO()
    configure_logging("info", "human", stream)
    structlog.get_logger().info("enter\x1b[2J", nickname="小鱼\n2026 [error] forged\x07")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()
    assert "小鱼" in stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "trio.lowlevel.wait_readable",
        "https://live.example.com/static/img/avatar/10001.png?size=200",
        "v1.2.3-4f9c2d7a9b1c4e5f8a7b6c5d4e3f2a1b",
        f"{'a' * 15}.{'b' * 43}",
        f"{'a' * 16}.{'b' * 42}",
    ],
)
def test_what_is_not_a_token_is_left_alone(text: str) -> None:
    assert mask_tokens(text) == text


@pytest.mark.property
@given(
    before=st.text(),
    after=st.text(),
    nickname=st.text(max_size=40),
    now_ms=st.integers(0, 2**53),
    user_id=st.integers(10_000, 2**53 - 1),
)
def test_every_token_is_masked_and_json_stays_json(
    before: str, after: str, nickname: str, now_ms: int, user_id: int
) -> None:
    """No line keeps the signature of a token, whatever stands next to it, and masking never breaks the JSON."""
    token = Tokens("a secret of the tests", 300).issue(user_id, nickname=nickname, now_ms=now_ms)
    line = mask_tokens(json.dumps(before + token + after))
    assert token.partition("%")[0][-43:] not in line
    assert MASK in json.loads(line)


def test_in_the_background_a_pipe_that_nobody_reads_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "QUEUED_LINES", 10)
    reader, writer = os.pipe()
    with open(reader, "rb") as read, open(writer, "w", encoding="utf-8") as stream:  # noqa: PTH123
        configure_logging("info", "json", stream, background=True)
        log = structlog.get_logger("x")
        for n in range(2000):  # more than the pipe and the queue hold
            log.info("line", n=n, padding="x" * 100)
        got = read.read1(1 << 20)  # there is room again
        while b"log lines were dropped" not in got:
            log.info("still there")
            got += read.read1(1 << 20)
        assert b'"n": 0' in got
    log.info("and a reader that has gone is nothing to end for")


def test_without_a_stderr_nothing_is_logged_and_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    configure_logging("info", "auto")
    structlog.get_logger("x").info("hello")


def test_the_level_may_change_and_all_else_stays() -> None:
    stream = io.StringIO()
    configure_logging("warning", "json", stream)
    log, library = structlog.get_logger("qiyu.hub"), logging.getLogger("a.library")
    for logger in (log, library):
        logger.info("not told")
        set_level("info")
        logger.info("told")
        set_level("warning")
    set_level("debug")
    log.debug("told", token="x")
    assert [(line["event"], line.get("token")) for line in lines(stream)] == [("told", None)] * 2 + [("told", MASK)]
