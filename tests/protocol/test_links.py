from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.test_tcp import CUTS, frame, split
from qiyu.errors import ProtocolViolation
from qiyu.model import InstanceId
from qiyu.protocol import links
from qiyu.protocol.links import (
    BODY_BYTES,
    HANDSHAKE_BYTES,
    NONCE_BYTES,
    VERSION,
    Challenge,
    Direct,
    Forward,
    Hello,
    Kick,
    LinkCode,
    LinkMessage,
    LinkWire,
    Ping,
    Proof,
    Ready,
    Receipt,
    RoomMessage,
    StoredMessage,
    Subscribe,
    Subscribed,
    encode,
)
from qiyu.protocol.packet import MAGIC

SECRET = b"the secret of the tests"
CALLER, CALLED = InstanceId(3, 5), InstanceId(700, 2**40)
NONCES = (b"\x01" * NONCE_BYTES, b"\x02" * NONCE_BYTES)
COUNTERS = st.integers(0, 2**63 - 1)
STORED = st.builds(StoredMessage, COUNTERS, COUNTERS, COUNTERS, st.binary(max_size=40))
HANDSHAKE = (Hello, Challenge, Proof, Ready)


def any_of(struct: type[LinkMessage]) -> st.SearchStrategy[LinkMessage]:
    kinds: dict[object, st.SearchStrategy[Any]] = {
        "Counter": COUNTERS,
        "int": st.integers(-(2**63), 2**63 - 1),
        "str": st.text(max_size=20),
        "bytes": st.binary(max_size=40),
        "bool": st.booleans(),
        "StoredMessage": STORED,
        "tuple[StoredMessage, ...]": st.lists(STORED, max_size=3).map(tuple),
    }
    return st.builds(struct, *(kinds[struct.__annotations__[name]] for name in struct.__struct_fields__))


MESSAGES = st.one_of([any_of(struct) for struct in links._STRUCTS if struct not in HANDSHAKE])


def pair(secret: bytes = SECRET, expects: InstanceId = CALLED) -> tuple[LinkWire, LinkWire]:
    return LinkWire(CALLER, SECRET, NONCES[0], expects), LinkWire(CALLED, secret, NONCES[1])


def converse(caller: LinkWire, called: LinkWire, carry: Callable[[bytes], bytes] = bytes) -> list[bytes]:
    """Carry bytes to and fro until neither owes any; what was on the wire."""
    said = []
    while caller.has_output or called.has_output:
        for one, other in ((caller, called), (called, caller)):
            data = one.data_to_send()
            if data:
                said.append(data)
                other.receive_data(memoryview(carry(data)))
    return said


def opened() -> tuple[LinkWire, LinkWire]:
    caller, called = pair()
    converse(caller, called)
    assert (caller.peer, called.peer) == (CALLED, CALLER)
    return caller, called


def reason(wire: LinkWire) -> str:
    assert wire.error is not None
    return wire.error.reason


class TestHandshake:
    def test_both_know_each_other_afterwards_and_the_secret_was_not_said(self) -> None:
        caller, called = pair()
        said = converse(caller, called)
        assert (caller.peer, called.peer) == (CALLED, CALLER)
        assert caller.error is called.error is None
        assert len(said) == 4
        assert not any(SECRET in data for data in said)

    def test_another_secret_is_refused_by_who_calls_before_it_proves_anything(self) -> None:
        caller, called = pair(b"another secret")
        said = converse(caller, called)
        assert "the proof is wrong" in reason(caller)
        assert caller.found is None
        assert caller.peer is called.peer is None
        assert len(said) == 2

    def test_another_secret_is_refused_by_who_is_called(self) -> None:
        called = LinkWire(CALLED, SECRET, NONCES[1])
        called.receive_data(encode(Hello(1, VERSION, *CALLER, NONCES[0])))
        called.data_to_send()
        assert called.receive_data(encode(Proof(bytes(32))) + encode(Ping())) == []
        assert "the proof is wrong" in reason(called)
        assert called.peer is None
        assert not called.has_output

    def test_who_only_sends_back_what_it_hears_proves_nothing(self) -> None:
        caller, called = pair()
        called.receive_data(caller.data_to_send())
        challenge = msgspec.msgpack.decode(called.data_to_send()[10:], type=Challenge)
        called.receive_data(encode(Proof(challenge.proof)))
        assert "the proof is wrong" in reason(called)

    def test_a_proof_fits_no_other_connection(self) -> None:
        caller, called = pair()
        _, _, proof, _ = converse(caller, called)
        again = LinkWire(CALLED, SECRET, b"\x03" * NONCE_BYTES)
        again.receive_data(encode(Hello(1, VERSION, *CALLER, NONCES[0])))
        again.receive_data(proof)
        assert "the proof is wrong" in reason(again)

    def test_whoever_pretends_to_be_another_instance_is_found_out(self) -> None:
        caller, called = pair()
        hello = msgspec.msgpack.decode(caller.data_to_send()[10:], type=Hello)
        called.receive_data(encode(msgspec.structs.replace(hello, number=4)))
        caller.receive_data(called.data_to_send())
        assert "the proof is wrong" in reason(caller)

    def test_an_instance_other_than_the_one_called_is_refused(self) -> None:
        caller, called = pair(expects=CALLED._replace(incarnation=6))
        converse(caller, called)
        assert reason(caller) == "instance 700 in its incarnation 1099511627776: expected 700 in its incarnation 6"
        assert caller.found == CALLED
        assert called.peer is None

    @pytest.mark.parametrize(("oldest", "newest"), [(0, 0), (2, 9)])
    def test_versions_that_do_not_meet_are_refused(self, oldest: int, newest: int) -> None:
        called = LinkWire(CALLED, SECRET, NONCES[1])
        called.receive_data(encode(Hello(oldest, newest, *CALLER, NONCES[0])))
        assert reason(called) == f"link versions {oldest} to {newest}: expected 1 to 1"

    def test_of_several_versions_the_newest_that_both_speak_is_taken(self) -> None:
        called = LinkWire(CALLED, SECRET, NONCES[1])
        called.receive_data(encode(Hello(0, 9, *CALLER, NONCES[0])))
        assert msgspec.msgpack.decode(called.data_to_send()[10:], type=Challenge).version == VERSION

    @pytest.mark.parametrize(
        "message", [Ping(), Proof(bytes(32)), Ready(), Challenge(1, *CALLED, NONCES[1], bytes(32)), Kick(1, 2, 3)]
    )
    def test_nothing_comes_before_hello(self, message: LinkMessage) -> None:
        called = LinkWire(CALLED, SECRET, NONCES[1])
        assert called.receive_data(encode(message)) == []
        assert reason(called) == f"a {message.code.name} out of its turn"

    def test_no_step_comes_twice(self) -> None:
        caller, called = opened()
        called.receive_data(encode(Hello(1, VERSION, *CALLER, NONCES[0])))
        caller.receive_data(encode(Ready()))
        assert reason(called) == "a HELLO out of its turn"
        assert reason(caller) == "a READY out of its turn"

    def test_who_does_not_wait_to_be_let_in_is_not(self) -> None:
        caller, called = pair()
        called.receive_data(caller.data_to_send())
        caller.receive_data(called.data_to_send())
        assert called.receive_data(caller.data_to_send() + encode(Ping())) == []
        assert reason(called) == "more behind a PROOF: expected an answer to be awaited"

    def test_a_stranger_takes_no_more_than_a_kilobyte(self) -> None:
        called = LinkWire(CALLED, SECRET, NONCES[1])
        called.receive_data(frame(LinkCode.HELLO, bytes(HANDSHAKE_BYTES + 1))[:10])
        assert reason(called) == "len 1025: expected 0 to 1024 bytes"

    def test_an_empty_secret_is_none(self) -> None:
        with pytest.raises(ValueError, match="an empty secret"):
            LinkWire(CALLED, b"", NONCES[1])

    def test_an_end_within_a_frame_is_an_error(self) -> None:
        caller, called = opened()
        called.receive_data(encode(Ping())[:-1])
        called.receive_eof()
        caller.receive_eof()
        assert reason(called) == "the connection ended within a frame"
        assert caller.error is None

    @pytest.mark.property
    @given(st.data())
    def test_one_flipped_bit_opens_nothing(self, data: st.DataObject) -> None:
        """Whatever bit of the handshake is another one: not both sides think the link open, and no error but a
        violation comes of it."""
        caller, called = pair()
        packets = iter(range(4))
        which = data.draw(st.integers(0, 3))

        def flip(said: bytes) -> bytes:
            if next(packets) != which:
                return said
            place = data.draw(st.integers(0, 8 * len(said) - 1))
            flipped = bytearray(said)
            flipped[place // 8] ^= 1 << place % 8
            return bytes(flipped)

        converse(caller, called, flip)
        assert caller.peer is None or called.peer is None


class TestMessages:
    @pytest.mark.property
    @given(st.lists(MESSAGES, max_size=6), CUTS)
    def test_however_they_are_split_the_same_messages_come(self, messages: list[LinkMessage], cuts: list[int]) -> None:
        """Whole, byte by byte or cut anywhere: what was encoded comes out, once, in order."""
        data = b"".join(map(encode, messages))
        for pieces in ([data], [bytes([byte]) for byte in data], list(split(data, cuts))):
            for wire in opened():
                assert [message for piece in pieces for message in wire.receive_data(piece)] == messages
                wire.receive_eof()
                assert wire.error is None

    @pytest.mark.property
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=40),
                MESSAGES.map(encode),
                st.builds(frame, st.sampled_from([*LinkCode, 1003, 0]), st.binary(max_size=40)),
                st.builds(
                    frame,
                    st.sampled_from([*LinkCode]),
                    st.recursive(
                        st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.binary(max_size=33)),
                        lambda inner: st.lists(inner, max_size=9),
                    ).map(msgspec.msgpack.encode),
                ),
            ),
            max_size=6,
        ).map(b"".join),
        CUTS,
    )
    @example(frame(LinkCode.FORWARD, b"\x91" * 5000), [])
    def test_any_bytes_give_messages_or_an_error_and_the_same_however_split(self, data: bytes, cuts: list[int]) -> None:
        """Whatever comes, before the handshake or after it: messages come out, then perhaps a fault, and no exception.

        Before the handshake no message does.
        """
        made: list[Callable[[], LinkWire]] = [lambda: pair()[1], lambda: opened()[0], lambda: opened()[1]]
        for make in made:
            whole = make()
            expected = whole.receive_data(data)
            assert whole.peer is not None or not expected
            for pieces in ([bytes([byte]) for byte in data], list(split(data, cuts))):
                wire = make()
                assert [message for piece in pieces for message in wire.receive_data(piece)] == expected
                assert (wire.error is None) == (whole.error is None)
            if whole.error is not None:
                assert isinstance(whole.error, ProtocolViolation)
                assert whole.receive_data(encode(Ping())) == []

    def test_fields_that_a_later_release_adds_are_skipped_and_those_it_misses_have_their_defaults(self) -> None:
        longer = msgspec.msgpack.encode([1, 2, 3, 4, 5, "new", [6]])
        shorter = msgspec.msgpack.encode([1, 2, 3])
        caller, _ = opened()
        [first, second] = caller.receive_data(frame(LinkCode.SUBSCRIBE, longer) + frame(LinkCode.SUBSCRIBE, shorter))
        assert first == Subscribe(1, 2, 3, 4, 5)
        assert second == Subscribe(1, 2, 3, 0, 0)

    @pytest.mark.parametrize(
        ("code", "fields"),
        [
            (LinkCode.RECEIPT, [1, -1]),
            (LinkCode.RECEIPT, [1, 2**63]),
            (LinkCode.RECEIPT, [1]),
            (LinkCode.RECEIPT, {"reference": 1, "msg_id": 1}),
            (LinkCode.ROOM_MESSAGE, [1, 2, [3, 4, 5]]),
            (LinkCode.ROOM_MESSAGE, [1, 2, [3, 4, 5, "text"]]),
            (LinkCode.FORWARD, [1, 2, 3, 4, 5, 6, b"\xff", "", "", ""]),
        ],
    )
    def test_fields_out_of_range_or_of_another_type_are_a_violation(self, code: LinkCode, fields: object) -> None:
        caller, _ = opened()
        assert caller.receive_data(frame(code, msgspec.msgpack.encode(fields))) == []
        assert reason(caller).startswith(f"the body of a {code.name}: ")

    def test_text_that_is_no_utf8_is_a_violation(self) -> None:
        body = msgspec.msgpack.encode([1, 2, 3, 4, 5, 6, "ab", "", "", ""]).replace(b"ab", b"\xff\xfe")
        caller, _ = opened()
        caller.receive_data(frame(LinkCode.FORWARD, body))
        assert reason(caller).startswith("the body of a FORWARD: ")

    def test_a_packet_of_clients_is_none_of_a_link(self) -> None:
        caller, _ = opened()
        caller.receive_data(frame(1003, b"{}"))
        assert reason(caller) == "code 1003: expected one of a link"

    def test_the_longest_body_is_bounded_on_both_sides(self) -> None:
        caller, called = opened()
        room = BODY_BYTES - len(msgspec.msgpack.encode(Direct(1, 2, StoredMessage(3, 4, 5, bytes(70_000)))))
        longest = Direct(1, 2, StoredMessage(3, 4, 5, bytes(70_000 + room)))
        assert called.receive_data(encode(longest)) == [longest]
        with pytest.raises(ValueError, match="expected 1048576 at most"):
            encode(Direct(1, 2, StoredMessage(3, 4, 5, bytes(70_001 + room))))
        caller.receive_data(frame(LinkCode.DIRECT, bytes(BODY_BYTES + 1))[:10])
        assert reason(caller) == "len 1048577: expected 0 to 1048576 bytes"

    def test_codes_are_of_links_alone_and_each_has_a_struct(self) -> None:
        assert set(links._DECODERS) == set(LinkCode)
        assert min(LinkCode) > 2000
        assert all(struct.__doc__ for struct in links._STRUCTS)
        assert MAGIC == 18673

    def test_a_room_message_costs_little_more_than_itself(self) -> None:
        """The wire of a link is not the bottleneck of a room: 30 bytes around the data."""
        data = string.ascii_letters.encode()
        message = RoomMessage(10_001, 42, StoredMessage(7_234_567_890_123_456_789, 20_001, 5555, data))
        assert len(encode(message)) - len(data) <= 40

    @pytest.mark.parametrize(
        "message",
        [
            Subscribed(1, 2, 3, 4, 5, 6, is_complete=False, missed=(StoredMessage(1, 2, 3, b"x"),)),
            Forward(1, 2, 3, 4, 5555, 0, "你好", "小明", "", "c-1"),
            Receipt(1, 2),
        ],
    )
    def test_what_is_said_is_a_plain_array(self, message: LinkMessage) -> None:
        """Whoever reads it with another library finds the fields in their order."""
        found = msgspec.msgpack.decode(encode(message)[10:])
        assert len(found) == len(message.__struct_fields__)
        assert found[0] == getattr(message, message.__struct_fields__[0])
