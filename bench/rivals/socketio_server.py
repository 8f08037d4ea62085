"""python-socketio on uvicorn and uvloop, over WebSocket from the first byte."""

# What it imports is installed for the benchmark alone:
# mypy: disable-error-code="import-not-found, untyped-decorator"

from __future__ import annotations

import socket
from itertools import count
from typing import Any

import socketio
import uvicorn

from bench.rivals.house import listening

# No pings within a run: the generator does not answer them.
server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], ping_interval=3600, ping_timeout=3600)
users: dict[str, int] = {}
room_of: dict[str, str] = {}
members: dict[str, dict[str, dict[str, None]]] = {}  # by room and sid: what it owes an ACK for
ids = count(10**18)


@server.event
async def connect(sid: str, _environ: dict[str, Any], auth: dict[str, int]) -> None:
    """A login."""
    users[sid] = auth["userId"]
    room_of[sid] = str(auth["roomId"])
    members.setdefault(room_of[sid], {})[sid] = {}


@server.event
async def disconnect(sid: str, _reason: str) -> None:
    """Gone."""
    users.pop(sid, None)
    members[room_of.pop(sid)].pop(sid, None)


@server.event
async def biz(sid: str, body: dict[str, Any]) -> None:
    """To everybody else in the room, each with its own userId."""
    msg_id = str(next(ids))
    for other, in_flight in list(members[room_of[sid]].items()):
        if other != sid:
            in_flight[msg_id] = None
            packet = {
                "appId": 10001,
                "userId": users[other],
                "bizCode": body["bizCode"],
                "data": body["data"],
                "msgId": msg_id,
            }
            await server.emit("biz", packet, to=other)


@server.event
async def ack(sid: str, body: dict[str, str]) -> None:
    """Struck off."""
    members[room_of[sid]][sid].pop(body["msgId"], None)


async def main() -> None:
    """Serve."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    app = socketio.ASGIApp(server)
    config = uvicorn.Config(app, loop="uvloop", log_level="warning", ws_ping_interval=None, backlog=4096)
    listening("ws", listener.getsockname()[1])
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
