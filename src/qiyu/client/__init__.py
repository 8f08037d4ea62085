"""A qiyu client over TCP and WebSocket (docs/protocol.md), for trio: under asyncio `connect` says so, and what to do.

async with connect("tcp://127.0.0.1:8085", user_id=10001, token=token, room_id=1) as client:
    msg_id = await client.send_room("hello")  # it is stored
    async for item in client:
        match item:
            case Message(sender_name=name, content=content): ...

With an account, `Api` has the calls over HTTP, and `connect` asks it where to go before each connection:

api = Api("https://live.example.com")
user_id = await api.log_in("ann", password)
async with connect(api.access, user_id=user_id) as client: ...
"""

from qiyu.client.access import Access, Server, Token
from qiyu.client.api import Api, History
from qiyu.client.client import Client, connect
from qiyu.client.errors import (
    ClientError,
    ConnectFailed,
    ConnectionLost,
    Kicked,
    LoginRefused,
    MessageRefused,
    NoReceipt,
    NotConnected,
    NotInRoom,
    RequestRefused,
)
from qiyu.client.messages import CaughtUp, Disconnected, Error, EventName, Item, Message, Reconnected, RoomEvent
from qiyu.client.options import Options
from qiyu.protocol.bodies import RoomAnswer

__all__ = [
    "Access",
    "Api",
    "CaughtUp",
    "Client",
    "ClientError",
    "ConnectFailed",
    "ConnectionLost",
    "Disconnected",
    "Error",
    "EventName",
    "History",
    "Item",
    "Kicked",
    "LoginRefused",
    "Message",
    "MessageRefused",
    "NoReceipt",
    "NotConnected",
    "NotInRoom",
    "Options",
    "Reconnected",
    "RequestRefused",
    "RoomAnswer",
    "RoomEvent",
    "Server",
    "Token",
    "connect",
]
