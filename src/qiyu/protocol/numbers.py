"""Whole numbers that come as strings of digits, as JavaScript and fastjson write them (docs/protocol.md, Bodies).

msgspec is strict, and most packets pass. One that does not is read once more: strings of digits are put right where a
number is wanted, and nothing else is.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar, get_args

import msgspec

from qiyu.protocol.packet import Buffer

T = TypeVar("T")

_DIGITS: Final = re.compile(r"[0-9]{1,20}")  # an int64 has 19 at most, and a longer one is out of any range
_ESCAPE: Final = re.compile(r"\\(?:u(?P<unit>[0-9a-fA-F]{4})|.)", re.DOTALL)


def numbers_of(struct: Any) -> frozenset[str]:
    """The fields of a struct, as JSON names them, that are whole numbers; none of what is no struct."""
    if not (isinstance(struct, type) and issubclass(struct, msgspec.Struct)):
        return frozenset()
    fields = msgspec.structs.fields(struct)
    return frozenset(each.encode_name for each in fields if int in (each.type, *_parts(each.type)))


def decode_digits(text: Buffer | str, struct: type[T], numbers: frozenset[str]) -> T:
    """`text` as a struct whose `numbers` may be strings of digits.

    Raises msgspec.ValidationError for any other wrong type, and what `msgspec.json.decode` raises.
    """
    found = msgspec.json.decode(text)
    if isinstance(found, dict):
        for name in numbers & found.keys():
            value = found[name]
            if isinstance(value, str) and _DIGITS.fullmatch(value):
                found[name] = int(value)
    return msgspec.convert(found, struct)


def json_fault(text: Buffer | str, error: Exception) -> str:
    """What is wrong with text that is no JSON: which value, and what was expected in its place."""
    readable = text if isinstance(text, str) else bytes(text).decode(errors="replace")
    half = _lone_surrogate(readable)
    if half:
        return f"{half} is half of a surrogate pair: expected a whole character"
    return str(error)


def _parts(of: Any) -> tuple[Any, ...]:
    """What a union or an annotated type is made of."""
    parts = get_args(of)
    return (*parts, *(inner for part in parts for inner in _parts(part)))


def _lone_surrogate(text: str) -> str:
    """The first escape that stands for half a character, or ""."""
    high: re.Match[str] | None = None
    for match in _ESCAPE.finditer(text):
        unit = int(match["unit"] or "0", 16)
        is_second = 0xDC00 <= unit < 0xE000
        if high is not None and not (is_second and match.start() == high.end()):
            return high[0]
        if high is None and is_second:
            return match[0]
        high = match if 0xD800 <= unit < 0xDC00 else None
    return high[0] if high is not None else ""
