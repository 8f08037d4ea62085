"""AMF 0, the values in RTMP's commands and metadata (Action Message Format 0, Adobe 2007).

A number is a float, an object or ECMA array a dict, a strict array a list, null and undefined are None, a date is its
milliseconds since 1970, XML its text. Nothing in it is trusted: depth and number of values are bounded, and a count is
compared with the bytes that are there before anything is made of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from qiyu.errors import QiyuError

Value: TypeAlias = "float | bool | str | dict[str, Value] | list[Value] | None"

MAX_DEPTH: Final = 8
MAX_VALUES: Final = 1024

_NUMBER, _BOOLEAN, _STRING, _OBJECT, _NULL, _UNDEFINED = 0, 1, 2, 3, 5, 6
_ECMA_ARRAY, _OBJECT_END, _STRICT_ARRAY, _DATE, _LONG_STRING = 8, 9, 10, 11, 12
_UNSUPPORTED, _XML, _TYPED_OBJECT = 13, 15, 16
_END: Final = b"\0\0\x09"  # the empty name, and the marker of an object's end

_DOUBLE: Final = struct.Struct(">d")
_UINT16: Final = struct.Struct(">H")
_UINT32: Final = struct.Struct(">I")


class AmfError(QiyuError):
    """The bytes are not AMF 0, or more of it than is read; the text says which."""


def decode(data: bytes) -> list[Value]:
    """All values in `data`, one after the other. Raises `AmfError`."""
    reader = _Reader(data)
    values: list[Value] = []
    while reader.at < len(data):
        values.append(reader.value(0))
    return values


def encode(values: Iterable[Value]) -> bytes:
    """The values as bytes; a dict becomes an object. Raises `AmfError` for a name of more than 65,535 bytes."""
    out = bytearray()
    for value in values:
        _encode(value, out)
    return bytes(out)


class _Reader:
    """A place in the bytes, and what may still be read from there."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self._values = 0
        self._kinds: dict[int, Callable[[int], Value]] = {
            _NUMBER: lambda _: self._double(),
            _BOOLEAN: lambda _: self._take(1) != b"\0",
            _STRING: lambda _: self._text(self._uint16()),
            _OBJECT: self._members,
            _NULL: lambda _: None,
            _UNDEFINED: lambda _: None,
            _ECMA_ARRAY: self._ecma_array,
            _STRICT_ARRAY: self._strict_array,
            _DATE: lambda _: self._date(),
            _LONG_STRING: lambda _: self._text(self._uint32()),
            _UNSUPPORTED: lambda _: None,
            _XML: lambda _: self._text(self._uint32()),
            _TYPED_OBJECT: self._typed_object,
        }

    def value(self, depth: int) -> Value:
        self._values += 1
        if self._values > MAX_VALUES:
            raise AmfError(f"more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise AmfError(f"values nested more than {MAX_DEPTH} deep")
        marker = self._take(1)[0]
        read = self._kinds.get(marker)
        if read is None:
            raise AmfError(f"a value of type {marker}, which is not one of AMF 0 that RTMP uses")
        return read(depth)

    def _members(self, depth: int) -> dict[str, Value]:
        members: dict[str, Value] = {}
        while self.data[self.at : self.at + 3] != _END:
            name = self._text(self._uint16())
            members[name] = self.value(depth + 1)
        self.at += 3
        return members

    def _ecma_array(self, depth: int) -> dict[str, Value]:
        self._uint32()  # how many there are: encoders that do not know yet say 0, so the end marker counts
        return self._members(depth)

    def _typed_object(self, depth: int) -> dict[str, Value]:
        self._text(self._uint16())  # the name of a class in ActionScript
        return self._members(depth)

    def _strict_array(self, depth: int) -> list[Value]:
        count = self._uint32()
        if count > len(self.data) - self.at:  # each takes a byte at least
            raise AmfError(f"an array of {count} values in {len(self.data) - self.at} bytes")
        return [self.value(depth + 1) for _ in range(count)]

    def _date(self) -> float:
        milliseconds = self._double()
        self._take(2)  # a time zone, which "should not" be used (AMF 0, section 2.13)
        return milliseconds

    def _double(self) -> float:
        number: float = _DOUBLE.unpack(self._take(8))[0]
        return number

    def _uint16(self) -> int:
        return int.from_bytes(self._take(2), "big")

    def _uint32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def _text(self, size: int) -> str:
        # Encoders put names of their maker or of a file into metadata, in whatever encoding they have them.
        return self._take(size).decode("utf-8", "replace")

    def _take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise AmfError(f"{size} bytes of a value expected, {len(self.data) - self.at} are there")
        taken = self.data[self.at : end]
        self.at = end
        return taken


def _encode(value: Value, out: bytearray) -> None:
    match value:
        case None:
            out.append(_NULL)
        case bool():
            out += bytes((_BOOLEAN, value))
        case int() | float():
            out.append(_NUMBER)
            out += _DOUBLE.pack(value)
        case str():
            text = value.encode()
            is_short = len(text) <= 0xFFFF
            out.append(_STRING if is_short else _LONG_STRING)
            out += (_UINT16 if is_short else _UINT32).pack(len(text)) + text
        case dict():
            out.append(_OBJECT)
            for name, member in value.items():
                _encode_name(name, out)
                _encode(member, out)
            out += _END
        case list():
            out.append(_STRICT_ARRAY)
            out += _UINT32.pack(len(value))
            for item in value:
                _encode(item, out)


def _encode_name(name: str, out: bytearray) -> None:
    key = name.encode()
    if not 0 < len(key) <= 0xFFFF:
        raise AmfError(f"a name of {len(key)} bytes: expected 1 to 65535")
    out += _UINT16.pack(len(key)) + key
