from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.protocol.fmp4.bits import BitReader, OutOfBits, without_emulation


def exp_golomb(code: int) -> str:
    digits = f"{code + 1:b}"
    return "0" * (len(digits) - 1) + digits


def as_bytes(bits: str) -> bytes:
    bits += "0" * (-len(bits) % 8)
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:]


@pytest.mark.property
@given(st.lists(st.integers(0, 2**32 - 2), max_size=6), st.integers(0, 255))
def test_codes_are_read_one_after_another(codes: list[int], last: int) -> None:
    """Any sequence of Exp-Golomb codes and a fixed field: read, they are what was written."""
    reader = BitReader(as_bytes("".join(map(exp_golomb, codes)) + f"{last:08b}"))
    assert [reader.unsigned() for _ in codes] == codes
    assert reader.read(8) == last


def test_signed_codes_alternate() -> None:
    # H.264, table 9-3.
    reader = BitReader(as_bytes("".join(map(exp_golomb, range(5)))))
    assert [reader.signed() for _ in range(5)] == [0, 1, -1, 2, -2]


@pytest.mark.parametrize("data", [b"", b"\0" * 8])
def test_what_is_not_there_cannot_be_read(data: bytes) -> None:
    with pytest.raises(OutOfBits):
        BitReader(data).unsigned()
    with pytest.raises(OutOfBits):
        BitReader(data).read(65)


def test_the_bytes_against_start_codes_are_taken_out() -> None:
    assert without_emulation(b"\x01\0\0\x03\x01\0\0\x03\0\0\x03") == b"\x01\0\0\x01\0\0\0\0"
