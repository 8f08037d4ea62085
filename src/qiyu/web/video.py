"""Where a room's picture is pushed to, and where it is watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qiyu.web.address import called_host, websocket_url

if TYPE_CHECKING:
    from qiyu.web.context import WebContext


def push_url(ctx: WebContext) -> str | None:
    """What an encoder calls its server; None where pictures come in nowhere."""
    if ctx.rtmp_public_url:
        return ctx.rtmp_public_url
    scheme = "rtmps" if "rtmp" in ctx.tls_listeners else "rtmp"
    return f"{scheme}://{called_host()}:{ctx.rtmp_port}/live" if ctx.rtmp_port else None


def stream_key(ctx: WebContext, room_id: int) -> str | None:
    """What an encoder calls its key, for the anchor alone; None where pictures come in nowhere."""
    return ctx.stream_keys.issue(room_id, ctx.clock().unix_ms) if push_url(ctx) is not None else None


def play_url(ctx: WebContext, room_id: int) -> str:
    """Where the room's picture is watched, whether there is one just now or not."""
    if ctx.play_url:
        return ctx.play_url.replace("{room}", str(room_id))
    return f"{websocket_url(ctx)}/live/{room_id}"
