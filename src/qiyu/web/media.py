"""/media: what an engine in front asks and tells (docs/video.md, Engines).

nginx's rtmp module sends form fields and goes by the status; SRS sends JSON and wants the body `0`. Only the addresses
in `[video] engines` may call.
"""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import parse_qsl

from quart import Blueprint, Response, request
from quart_schema import hide

from qiyu.errors import BadToken, CallRefused
from qiyu.living.engines import Client
from qiyu.living.stream_keys import BadStreamKey
from qiyu.living.streams import PushRefused
from qiyu.web.context import WebContext, context

YES: Final = "0"  # as SRS wants it

media = Blueprint("media", __name__, url_prefix="/media")


@media.post("/on_publish")
@hide
async def on_publish() -> Response:
    """Whether a push may begin."""
    ctx, asked = await _asked()
    try:
        room_id = ctx.stream_keys.verify(_stream_key(asked), ctx.clock().unix_ms)
        await _require_open(ctx, room_id)
        ctx.engine_pushes.begin(_client(asked), room_id, ctx.clock())
    except (BadStreamKey, PushRefused) as exc:
        raise CallRefused(403, str(exc)) from None
    return Response(YES)


@media.post("/on_publish_done")
@media.post("/on_unpublish")
@hide
async def on_publish_done() -> Response:
    """A push is over, or was refused."""
    ctx, asked = await _asked()
    ctx.engine_pushes.finish(_client(asked))
    return Response(YES)


@media.post("/on_update")
@hide
async def on_update() -> Response:
    """Whether a push may go on; whoever plays may."""
    ctx, asked = await _asked()
    is_push = asked.get("call", "update_publish") == "update_publish"
    if is_push and not ctx.engine_pushes.goes_on(_client(asked), ctx.clock()):
        raise CallRefused(403, "the push is at its end: its room was closed, or it is not known here")
    return Response(YES)


@media.post("/on_play")
@hide
async def on_play() -> Response:
    """Whether a room's picture may be played: where pictures are not open to all, with userId and token."""
    ctx, asked = await _asked()
    room, user = asked.get("name", ""), asked.get("userId", "")
    if not _is_number(room):
        raise CallRefused(403, "name: expected the number of a room")
    if not ctx.are_pictures_open:
        try:
            user_id = int(user) if _is_number(user) else 0
            ctx.tokens.verify(asked.get("token", ""), user_id=user_id, app_id=None, now_ms=ctx.clock().unix_ms)
        except BadToken as exc:
            raise CallRefused(403, str(exc)) from None
    await _require_open(ctx, int(room))
    return Response(YES)


async def _asked() -> tuple[WebContext, dict[str, str]]:
    """The fields, under nginx's names. What stood behind a question mark is among them."""
    ctx = context()
    address = ipaddress.ip_address(request.remote_addr or "0.0.0.0")  # noqa: S104
    if not any(address in network for network in ctx.engines):
        raise CallRefused(403, "only the engines that [video] engines names may call this")
    if not request.is_json:
        return ctx, dict((await request.form).items())
    sent = await request.get_json()
    if not isinstance(sent, dict):
        raise CallRefused(400, "expected an object")
    told = {name: str(value) for name, value in sent.items()}
    param = dict(parse_qsl(told.get("param", "").lstrip("?")))
    return ctx, param | {"name": told.get("stream", ""), "clientid": told.get("client_id", "")}


def _stream_key(asked: dict[str, str]) -> str:
    name, key = asked.get("name", ""), asked.get("key", "")
    return f"{name}?key={key}" if key else name


def _client(asked: dict[str, str]) -> Client:
    client_id = asked.get("clientid", "")
    if not client_id:
        raise CallRefused(400, "clientid: expected the engine's number of the connection")
    return request.remote_addr or "", client_id


async def _require_open(ctx: WebContext, room_id: int) -> None:
    if await ctx.living_rooms.find(room_id, ctx.clock()) is None:
        raise CallRefused(403, f"room {room_id} is not open")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 16
