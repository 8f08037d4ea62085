from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

import trio

from qiyu.client.errors import MessageRefused
from qiyu.client.messages import ChatToSend, packet_of
from qiyu.client.uplink import Uplink
from qiyu.errors import ErrorCode
from qiyu.protocol.bodies import encode_json
from qiyu.protocol.packet import CLIENT_MSG_ID_CHARS, BizCode, MsgCode, Packet

_ID_BYTES: Final = 16
"""Random ones, so that nobody else's id can be guessed or met by chance; 22 characters in base64."""


async def send(
    uplink: Uplink, biz_code: BizCode, chat: Callable[[], ChatToSend], client_msg_id: str | None, *, receipt: bool
) -> str:
    """Send a message in its turn, which is when `chat` makes it; what it returns and raises stands at `send_room`."""
    if client_msg_id is not None and not (receipt and 1 <= len(client_msg_id) <= CLIENT_MSG_ID_CHARS):
        raise ValueError(
            f"client_msg_id {client_msg_id!r}: expected 1 to {CLIENT_MSG_ID_CHARS} characters, and a receipt"
        )
    if receipt:
        return await _send_for_receipt(uplink, biz_code, chat, client_msg_id or secrets.token_urlsafe(_ID_BYTES))
    async with uplink.turn() as connection:
        number = connection.put(_packet(uplink, biz_code, chat(), ""))
    await connection.flush(number)
    return ""


async def _send_for_receipt(
    uplink: Uplink, biz_code: BizCode, chat: Callable[[], ChatToSend], client_msg_id: str
) -> str:
    deadline = trio.current_time() + uplink.options.receipt_seconds
    async with uplink.turn(uplink.options.receipt_seconds, lambda: uplink.outgoing.is_open) as connection:
        message = uplink.outgoing.add(client_msg_id, _packet(uplink, biz_code, chat(), client_msg_id))
        connection.put(message.packet)
    with uplink.incoming.answer_awaited():
        return await uplink.outgoing.receipt(message, deadline)


def _packet(uplink: Uplink, biz_code: BizCode, chat: ChatToSend, client_msg_id: str) -> Packet:
    packet = packet_of(MsgCode.BIZ, biz_code=biz_code, data=encode_json(chat).decode(), client_msg_id=client_msg_id)
    if len(packet.body) > uplink.options.body_bytes:
        reason = f"a body of {len(packet.body)} bytes: the server takes {uplink.options.body_bytes} at most"
        raise MessageRefused(ErrorCode.MALFORMED, reason)
    return packet
