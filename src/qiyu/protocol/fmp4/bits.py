"""Bits of a parameter set, most significant first."""

from __future__ import annotations

from typing import Final

from qiyu.errors import QiyuError

_MAX_ZEROS: Final = 31  # of an Exp-Golomb code: no field of a parameter set is longer than 32 bits


class OutOfBits(QiyuError):
    """More bits were read than there are, or a code has more than a field may."""


class BitReader:
    """Reads fixed fields and Exp-Golomb codes (H.264, section 9.1)."""

    __slots__ = ("_at", "_number", "_size")

    def __init__(self, data: bytes) -> None:
        self._number = int.from_bytes(data, "big")
        self._size = len(data) * 8
        self._at = 0

    def read(self, count: int) -> int:
        """The next `count` bits. Raises `OutOfBits`."""
        self._at += count
        if self._at > self._size:
            raise OutOfBits
        return self._number >> (self._size - self._at) & ((1 << count) - 1)

    def flag(self) -> bool:
        """The next bit."""
        return self.read(1) == 1

    def unsigned(self) -> int:
        """The next ue(v)."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > _MAX_ZEROS:
                raise OutOfBits
        return (1 << zeros) - 1 + self.read(zeros)

    def signed(self) -> int:
        """The next se(v)."""
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def without_emulation(nal: bytes) -> bytes:
    """A NAL unit's payload without the bytes that keep it from looking like a start code (H.264, section 7.4.1)."""
    return nal.replace(b"\0\0\x03", b"\0\0")
