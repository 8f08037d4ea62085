"""What others wrote, as it may stand on a terminal."""

from __future__ import annotations

import unicodedata
from typing import Final

from qiyu.accounts.credentials import FLAG
from qiyu.client import Message

_JOINERS: Final = "\u200c\u200d"  # format characters that Persian and emoji are written with
_OBEYED: Final = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, formats, surrogates, separators of lines and paragraphs
_NAMED_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def line_of(message: Message) -> str:
    """A message on one line: `10002 (nick): text`."""
    return f"{who(message.sender_id, message.sender_name)}: {harmless(message.content)}"


def who(user_id: int, name: str) -> str:
    """`10002 (nick)`."""
    return f"{user_id} ({harmless(name)})" if name else str(user_id)


def harmless(text: str) -> str:
    """`text` without what a terminal obeys: control characters, and those that turn the direction of writing.

    Others wrote it. What could move the cursor, set the title, end the line or hide what stands there is shown escaped.
    The tags of a flag, England's say, are no such thing: a terminal shows one picture for all of them.
    """
    parts = []
    end = 0
    for flag in FLAG.finditer(text):
        parts += [_escaped(text[end : flag.start()]), flag.group()]
        end = flag.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return "".join([char if _is_shown(char) else _escape(char) for char in text])


def _is_shown(char: str) -> bool:
    return char in _JOINERS or unicodedata.category(char) not in _OBEYED


def _escape(char: str) -> str:
    return _NAMED_ESCAPES.get(char) or char.encode("unicode_escape", errors="surrogatepass").decode()
