"""The reading in C does what the reading in Python does, and nothing that it is given makes it read out of bounds."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_acks import ACK, CUTS, bodies, envelope, masked, opened, pieces, tcp, tcp_streams, told, websocket_streams
from qiyu.protocol import accelerator, ack_runs, frames, masking, packet
from qiyu.protocol import tcp as tcp_wire
from qiyu.protocol import websocket as websocket_wire
from qiyu.protocol.packet import Buffer
from qiyu.protocol.tcp import TcpWire

try:
    from qiyu.protocol import _accelerator as native
except ImportError:
    pytest.skip("it was not built here, for lack of a C compiler", allow_module_level=True)

KEYS = st.binary(min_size=4, max_size=4)
FRAME = tcp(b'{"appId":10001,"msgId":"1000000000000000001"}')
MESSAGE = envelope('{"appId":10001,"msgId":"1000000000000000001"}')
MASKED = masked(MESSAGE, b"abcd")
HEADER_AND_KEY = len(MASKED) - len(MESSAGE)


@contextmanager
def reading_with(read_packets: object, read_frames: object, unmask: object) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tcp_wire, "read_packets", read_packets)
        patch.setattr(websocket_wire, "read_frames", read_frames)
        patch.setattr(frames, "unmask", unmask)
        yield


def test_both_mean_the_same_by_their_numbers() -> None:
    assert accelerator.INTERFACE == native.INTERFACE
    assert (packet.MAGIC, int(packet.MsgCode.ACK), packet.MSG_ID_DIGITS) == (18673, 1005, 19)
    assert masking.SMALL_BYTES == 512


# The same


@pytest.mark.property
@given(tcp_streams(), websocket_streams(), CUTS)
def test_streams_come_to_the_same(over_tcp: bytes, over_websocket: bytes, cuts: list[int]) -> None:
    """The msgIds, all other packets and the fault are the same, however the bytes are cut."""

    def read() -> list[object]:
        return [
            told(TcpWire(65_536), [over_tcp]),
            told(TcpWire(65_536), pieces(over_tcp, cuts)),
            told(opened(), [over_websocket]),
            told(opened(), pieces(over_websocket, cuts)),
        ]

    with reading_with(ack_runs.read_packets, ack_runs.read_frames, masking.unmask):
        expected = read()
    with reading_with(native.read_packets, native.read_frames, native.unmask):
        assert read() == expected


@pytest.mark.property
@given(bodies(), bodies(), st.integers(0, 20), st.sampled_from([bytes, bytearray, memoryview]))
def test_packets_are_read_alike(
    same: list[str], others: list[str], before: int, kind: Callable[[bytes], Buffer]
) -> None:
    """Run for run; but alone, what says more than the msgId is an ACK in C, and left to JSON in Python."""
    frames = [tcp(body.encode()) for body in (*same, *others)]
    data = b"\0" * before + b"".join(frames)
    start, end = before, before + len(frames[0])
    expected = ack_runs.read_packets(data, start, end)
    found = native.read_packets(kind(data), start, end)
    if found != expected:
        assert expected is None
        assert found is not None
        assert found[0] == end > len(data) - len(frames[0])
        assert ack_runs.read_packets(data + frames[0], start, end + len(frames[0])) is None
        assert ack_runs.read_packets(frames[0] * 2, 0, len(frames[0])) == (2 * len(frames[0]), found[1] * 2)


@pytest.mark.property
@given(bodies(), bodies(), st.booleans(), st.lists(KEYS, min_size=10, max_size=10), st.integers(0, 20))
def test_frames_are_read_alike(
    same: list[str], others: list[str], spaced: bool, keys: list[bytes], before: int
) -> None:
    """As packets are, and what is no ACK is unmasked."""
    messages = [envelope(body, ACK, spaced=spaced) for body in (*same, *others)]
    if len(messages[0]) >= masking.SMALL_BYTES:
        return
    found_frames = [masked(message, key) for message, key in zip(messages, keys, strict=False)]
    data = b"\0" * before + b"".join(found_frames)
    first = found_frames[0]
    stop = before + len(first)
    arguments = (before, stop - len(messages[0]), stop)
    expected = ack_runs.read_frames(data, *arguments)
    found = native.read_frames(data, *arguments)
    if found != expected:
        assert expected == (stop, messages[0])
        assert found[0] == stop > len(data) - len(first)
        again = ack_runs.read_frames(data[:stop] + first, *arguments)
        assert again == (stop + len(first), [*found[1], *found[1]])


@pytest.mark.property
@given(st.binary(max_size=1500), KEYS, st.binary(max_size=9))
def test_masks_come_off_alike(payload: bytes, key: bytes, before: bytes) -> None:
    start = len(before) + 4
    hidden = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    data = before + key + hidden + before
    for unmask in (native.unmask, masking.unmask):
        assert unmask(data, start, start + len(payload)) == payload


# Whatever it is given

ANYWHERE = st.one_of(st.integers(-3, 300), st.sampled_from([2**31, 2**62, -(2**62)]))


@pytest.mark.property
@given(st.one_of(st.binary(max_size=200), st.just(MASKED * 2), st.just(FRAME * 2)), ANYWHERE, ANYWHERE, ANYWHERE)
def test_positions_out_of_the_data_are_an_error(data: bytes, pos: int, start: int, stop: int) -> None:
    """Whatever the positions, what comes is from within the data, or it is `ValueError`."""
    fits = 0 <= pos <= start - 4 and start <= stop <= len(data)
    if fits and stop - start < masking.SMALL_BYTES:
        end, taken = native.read_frames(data, pos, start, stop)
        assert stop <= end <= len(data)
        assert isinstance(taken, list) or taken == masking.unmask(data, start, stop)
    else:
        with pytest.raises(ValueError, match="positions"):
            native.read_frames(data, pos, start, stop)
    if 0 <= start <= stop <= len(data):
        run = native.read_packets(data, start, stop)
        assert run is None or stop <= run[0] <= len(data)
    else:
        with pytest.raises(ValueError, match="positions"):
            native.read_packets(data, start, stop)


@pytest.mark.parametrize("size", [0, 1, 7, 511, 512, 513, 70_000])
def test_a_message_must_be_small_for_read_frames(size: int) -> None:
    data = bytes(10 + size)
    if size < 512:
        assert native.read_frames(data, 2, 10, 10 + size) == (10 + size, bytes(size))
    else:
        with pytest.raises(ValueError, match="positions"):
            native.read_frames(data, 2, 10, 10 + size)
    assert native.unmask(data, 10, 10 + size) == bytes(size)


@pytest.mark.parametrize("start", [-1, 0, 3])
def test_a_key_must_stand_before_the_payload(start: int) -> None:
    with pytest.raises(ValueError, match="positions"):
        native.unmask(b"abcdefgh", start, 8)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("read_packets", (b"", 0)),
        ("read_packets", (b"", 0, 0, 0)),
        ("read_packets", ("", 0, 0)),
        ("read_packets", (b"", "0", 0)),
        ("read_frames", (bytearray(8), 0, 4, 8)),
        ("read_frames", (b"", 0, 0)),
        ("unmask", (memoryview(bytes(8)), 4, 8)),
        ("unmask", (bytes(8), 4)),
        ("unmask", (bytes(8), 4, None)),
    ],
)
def test_other_types_are_an_error(function: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        getattr(native, function)(*arguments)


def test_numbers_beyond_a_machine_word_are_an_error() -> None:
    with pytest.raises(OverflowError):
        native.read_packets(b"", 2**64, 0)


def test_nothing_is_kept() -> None:
    def use() -> None:
        for _ in range(2000):
            native.read_packets(memoryview(FRAME * 3), 0, len(FRAME))
            native.read_packets(b"x" * 100, 0, 50)
            native.read_frames(MASKED * 3, 0, HEADER_AND_KEY, len(MASKED))
            native.read_frames(bytes(100), 0, 6, 100)
            native.unmask(bytes(100), 4, 100)
            with pytest.raises(ValueError, match="positions"):
                native.unmask(bytes(100), 4, 101)

    use()
    before = sys.getallocatedblocks()
    use()
    assert sys.getallocatedblocks() - before < 500


# Which is used


def test_what_was_built_is_used() -> None:
    assert accelerator.load({}) == (native, "on")
    assert accelerator.load({"QIYU_PURE_PYTHON": "0"}) == (native, "on")
    assert accelerator.load({"QIYU_PURE_PYTHON": ""}) == (native, "on")


def test_a_variable_keeps_to_python() -> None:
    assert accelerator.load({"QIYU_PURE_PYTHON": "1"}) == (None, "off, by QIYU_PURE_PYTHON")


def test_where_it_was_not_built_python_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(monkeypatch, None)
    assert accelerator.load({}) == (None, "off, for it was not built")


def test_what_was_built_for_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(monkeypatch, SimpleNamespace(INTERFACE=accelerator.INTERFACE + 1))
    assert accelerator.load({}) == (None, "off, for it was built for another version")


def _stand_in(monkeypatch: pytest.MonkeyPatch, module: SimpleNamespace | None) -> None:
    package: ModuleType = importlib.import_module("qiyu.protocol")
    monkeypatch.delattr(package, "_accelerator", raising=False)
    monkeypatch.setitem(sys.modules, "qiyu.protocol._accelerator", module)
