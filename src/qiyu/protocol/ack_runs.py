"""ACKs read in runs, on both wires.

Most of what a busy server reads is ACKs, many in a row, alike but for the msgId. Most say besides it only what nobody
needs: who the client is, and fields that it left empty. So a run of them is read in one go: a pattern looks at the
first, and those behind it need only be the same bytes around other digits.

The pattern takes the keys in any order, and the spaces that common JSON encoders write. Whatever looks different in any
way takes the common road (bodies.py, envelope.py), which would read the same msgIds out of all that is taken here. So
does one that says more than the msgId and has none behind it: alone, it is read faster as JSON.
"""

from __future__ import annotations

import re
from typing import Final

from qiyu.protocol.masking import REPEAT, unmask
from qiyu.protocol.packet import MAGIC, MSG_ID_DIGITS, Buffer, MsgCode

_SHORTEST_BODY: Final = len(b'{"msgId":""}') + MSG_ID_DIGITS
ACK_BODIES: Final = range(_SHORTEST_BODY, 257)
"""How many bytes a body may have over TCP that is worth a look here."""

_MAGIC_AND_CODE: Final = MAGIC.to_bytes(2) + MsgCode.ACK.to_bytes(4)
_HEADER_BYTES: Final = len(_MAGIC_AND_CODE) + 4
_DIGITS: Final = b"[0-9]{%d}" % MSG_ID_DIGITS
_NUMBER: Final = b"(?:0|[1-9][0-9]{0,18})"


def _body(quote: bytes) -> tuple[bytes, bytes]:
    """The pattern of an ACK's body, before its digits and after them; `quote` is how a quotation mark is written."""
    number = b"%(q)b(?:appId|userId|bizCode)%(q)b: ?(?:%(n)b|%(q)b[0-9]+%(q)b|null)" % {b"q": quote, b"n": _NUMBER}
    empty = b"%(q)b(?:token|data|clientMsgId)%(q)b: ?(?:%(q)b%(q)b|null)" % {b"q": quote}
    field = b"(?:%b|%b)" % (number, empty)
    before = b"{(?:%b, ?)*%bmsgId%b: ?%b" % (field, quote, quote, quote)
    return before, b"%b(?:, ?%b)*}" % (quote, field)


def _tcp_pattern() -> re.Pattern[bytes]:
    before, after = _body(b'"')
    return re.compile(
        b"(%b.{4}%b)%b(%b)(?:\\1%b\\2)*" % (re.escape(_MAGIC_AND_CODE), before, _DIGITS, after, _DIGITS), re.DOTALL
    )


def _message_pattern() -> re.Pattern[bytes]:
    before, after = _body(rb"\\\"")
    field = b'"(?:magic": ?%d|code": ?%d|len": ?%b)' % (MAGIC, MsgCode.ACK, _NUMBER)
    return re.compile(b'({(?:%b, ?)*"body": ?"%b)(%b)(%b"(?:, ?%b)*})' % (field, before, _DIGITS, after, field))


_match_run: Final = _tcp_pattern().match
# What is fixed is compared faster than what must only be like the first.
_match_shortest: Final = re.compile(
    b'(?:%b{"msgId":"%b"})+' % (re.escape(_MAGIC_AND_CODE + _SHORTEST_BODY.to_bytes(4)), _DIGITS)
).match
_SHORTEST_FRAME: Final = _HEADER_BYTES + _SHORTEST_BODY
_SHORTEST_DIGITS: Final = _HEADER_BYTES + len(b'{"msgId":"')

_SHORTEST_BEFORE: Final = b'{"magic":%d,"code":%d,"len":%d,"body":"{\\"msgId\\":\\"' % (
    MAGIC,
    MsgCode.ACK,
    _SHORTEST_BODY,
)
_SHORTEST_AFTER: Final = b'\\"}"}'
_SHORTEST_MESSAGE: Final = len(_SHORTEST_BEFORE) + MSG_ID_DIGITS + len(_SHORTEST_AFTER)
_SHORTEST_MESSAGE_DIGITS: Final = slice(len(_SHORTEST_BEFORE), -len(_SHORTEST_AFTER))
_match_message: Final = _message_pattern().fullmatch
_USUAL_FIELDS: Final = b'{"magic":%d,"code":%d,' % (MAGIC, MsgCode.ACK)


def read_packets(data: Buffer, start: int, end: int) -> tuple[int, list[str]] | None:
    """The ACKs over TCP that follow each other from the packet at start:end on: where they end, and their msgIds.

    None if that packet is none, or not one that is read here.
    """
    size = end - start
    run = _match_shortest(data, start) if size == _SHORTEST_FRAME else None
    if run is not None:
        digits, stop = _SHORTEST_DIGITS, run.end()
    else:
        run = _match_run(data, start) if len(data) - end >= size else None
        if run is None or run.end(2) != end:
            return None
        digits, stop = run.end(1) - start, run.end()
    text = str(data[start:stop], "latin-1")
    return stop, [text[at : at + MSG_ID_DIGITS] for at in range(digits, stop - start, size)]


def read_frames(data: bytes, pos: int, start: int, stop: int) -> tuple[int, list[str] | bytes]:
    """The small text message masked at start:stop, whose frame begins at `pos`: unmasked, and where it stops.

    If it is an ACK in an envelope that is read here: the msgIds of it and of the ACKs that follow it, and where the
    last of them stops.
    """
    size, length = stop - pos, stop - start
    last = len(data) - size  # where another as long may begin at the latest
    message = unmask(data, start, stop)
    if length == _SHORTEST_MESSAGE and message.startswith(_SHORTEST_BEFORE) and message.endswith(_SHORTEST_AFTER):
        before, after = _SHORTEST_BEFORE, _SHORTEST_AFTER
        msg_id = message[_SHORTEST_MESSAGE_DIGITS]
        if not msg_id.isdigit():
            return stop, message
    else:
        ack = _match_message(message) if stop <= last else None
        if ack is None or not (ack[1].startswith(_USUAL_FIELDS) or _is_whole(ack[1] + ack[3])):
            return stop, message
        before, msg_id, after = ack.groups()
    msg_ids = [msg_id.decode()]
    if stop > last:
        return stop, msg_ids
    header, digits = data[pos : start - 4], slice(len(before), -len(after))
    from_bytes, repeat, surplus = int.from_bytes, REPEAT[length], -length % 4 * 8  # as in `unmask`, without a call
    while stop <= last and data.startswith(header, stop):
        start, end = stop + size - length, stop + size
        key = from_bytes(data[start - 4 : start]) * repeat >> surplus
        message = (from_bytes(data[start:end]) ^ key).to_bytes(length)
        msg_id = message[digits]
        if not (msg_id.isdigit() and message.startswith(before) and message.endswith(after)):
            break
        msg_ids.append(msg_id.decode())
        stop = end
    return stop, msg_ids


def _is_whole(fields: bytes) -> bool:
    """Whether an envelope has both that it must have; the quotes inside the body have backslashes."""
    return b'"magic"' in fields and b'"code"' in fields
