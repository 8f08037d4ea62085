from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.accounts.credentials import FLAG
from qiyu.cli.shown import harmless, line_of
from qiyu.client import Message

ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
SCOTLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
CHARACTERS = st.characters() | st.sampled_from([ENGLAND, SCOTLAND, ENGLAND[:-1], ENGLAND[1:], "\x1b[2J"])


def message(content: str, name: str = "ann") -> Message:
    return Message(
        sender_id=10002,
        sender_name=name,
        sender_avatar="",
        content=content,
        type=1,
        created_ms=0,
        msg_id="1",
        room_id=1,
    )


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (message("hello"), "10002 (ann): hello"),
        (message("hello", name=""), "10002: hello"),
        (message("两\n行\r\n\t."), r"10002 (ann): 两\n行\r\n\t."),
        (message("\x1b[2J\x1b]0;title\x07"), r"10002 (ann): \x1b[2J\x1b]0;title\x07"),
        (message("\x9b31m"), r"10002 (ann): \x9b31m"),
        (message("x", name="\u202eevil\n10001"), r"10002 (\u202eevil\n10001): x"),
        (message("\u2028\u0085\ud800"), r"10002 (ann): \u2028\x85\ud800"),
        (message("👨\u200d👩 é ☺\ufe0f"), "10002 (ann): 👨\u200d👩 é ☺\ufe0f"),
        (message(ENGLAND, name=f"x{SCOTLAND}"), f"10002 (x{SCOTLAND}): {ENGLAND}"),
        (message(ENGLAND[:-1]), "10002 (ann): \U0001f3f4" + r"\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067"),
        (message(ENGLAND[1:]), r"10002 (ann): \U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"),
    ],
)
def test_a_message_on_one_line(said: Message, line: str) -> None:
    assert line_of(said) == line


@pytest.mark.property
@given(st.lists(CHARACTERS).map("".join))
def test_a_terminal_obeys_nothing_of_what_others_wrote(text: str) -> None:
    """Invariant: no control, format, surrogate or separator gets through, but for joiners and flags; one line stays."""
    shown = FLAG.sub("", harmless(text))
    assert len(shown.splitlines()) <= 1
    assert all(unicodedata.category(char) not in {"Cc", "Cs", "Zl", "Zp"} for char in shown)
    assert {char for char in shown if unicodedata.category(char) == "Cf"} <= {"\u200c", "\u200d"}
    shown.encode()
