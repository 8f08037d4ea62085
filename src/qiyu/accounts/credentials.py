"""What an account may be called, what a password may be, and what may stand in a profile.

Each function returns the text as it is to be stored, and raises ValueError for one that will not do; the words beside
it say what it accepts, and follow `expected`.

Names and passwords are brought into Unicode's NFKC form, so that the same text typed on two keyboards is the same: a
full-width `Ａ` is an `A`, and an `é` is an `é` however it was composed (NIST SP 800-63B, section 5.1.1.2, asks it of
passwords). Nicknames are shown and not compared, and only composed (NFC).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import urlsplit

NAME_WORDS: Final = "2 to 30 characters that can be seen"
PASSWORD_WORDS: Final = "8 to 128 characters"  # noqa: S105  # about passwords
NICK_NAME_WORDS: Final = "1 to 35 characters that can be seen"
ROOM_NAME_WORDS: Final = "1 to 60 characters that can be seen"
IMAGE_WORDS: Final = 'an http:// or https:// address or a path such as /images/me.png, at most 255 characters, or ""'

NAME_CHARS: Final = (2, 30)
PASSWORD_CHARS: Final = (8, 128)
NICK_NAME_CHARS: Final = (1, 35)  # the seed's column
ROOM_NAME_CHARS: Final = (1, 60)  # the seed's column
IMAGE_CHARS: Final = 255  # the seed's column

_RAW_CHARS: Final = 1024  # of anything, before it is normalized: that may take long, and make it longer

# Controls, formats (which turn the direction of writing), surrogates, separators of lines and of paragraphs.
_OBEYED: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_UNASSIGNED: Final = frozenset({"Cn", "Co"})
_JOINERS: Final = frozenset("\u200c\u200d\ufe0e\ufe0f")  # formats that Persian and emoji are written with
# Letters, marks and symbols with nothing to see: fillers, the empty Braille pattern, variation selectors.
_BLANK: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]))
)
FLAG: Final = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f")
"""The flags of England, Scotland and Wales: a black flag, the region's letters as tags, and the tag that ends them
(Unicode Technical Standard 51, Emoji Tag Sequence). A tag anywhere else is one that nobody sees."""
_IMAGE_PATH: Final = re.compile(r"/(?![/\\])[^\s\x00-\x20\x7f\"'<>\\^`{|}]*")
_IMAGE_URL: Final = re.compile(r"https?://[^\s\x00-\x20\x7f\"'<>\\^`{|}]+")


def account_name(text: str) -> str:
    """The name one logs in with. Two names that differ in case alone are the same account's."""
    name = unicodedata.normalize("NFKC", _short(text)).strip()
    kinds = {unicodedata.category(char) for char in name}
    if kinds & (_OBEYED | _UNASSIGNED) or _BLANK & set(name):
        raise ValueError
    return _counted(name, *NAME_CHARS)


def password(text: str) -> str:
    """A password: any characters at all, spaces at its ends included."""
    normal = unicodedata.normalize("NFKC", _short(text))
    normal.encode()  # UnicodeEncodeError is a ValueError: half of a surrogate pair is no character
    return _counted(normal, *PASSWORD_CHARS)


def nick_name(text: str) -> str:
    """The name that others see."""
    return _one_line(text, *NICK_NAME_CHARS)


def room_name(text: str) -> str:
    """The title of a living room."""
    return _one_line(text, *ROOM_NAME_CHARS)


def image(text: str) -> str:
    """Where a picture is: a web address, or a path on this host. Pages show it, so it can be nothing that runs."""
    if not text:
        return ""
    if len(text) > IMAGE_CHARS or any(unicodedata.category(char) in _OBEYED for char in text):
        raise ValueError
    if _IMAGE_PATH.fullmatch(text):
        return text
    if not _IMAGE_URL.fullmatch(text) or not urlsplit(text).hostname:
        raise ValueError
    return text


def _one_line(text: str, least: int, most: int) -> str:
    line = unicodedata.normalize("NFC", _short(text)).strip()
    if any(unicodedata.category(char) in _OBEYED and char not in _JOINERS for char in FLAG.sub("", line)):
        raise ValueError
    if line and not set(line) - _JOINERS - _BLANK - {" "}:
        raise ValueError
    return _counted(line, least, most)


def _short(text: str) -> str:
    if len(text) > _RAW_CHARS:
        raise ValueError
    return text


def _counted(text: str, least: int, most: int) -> str:
    if not least <= len(text) <= most:
        raise ValueError
    return text
