"""A qiyu client for trio, over TCP and WebSocket (docs/protocol.md).

async with connect("tcp://127.0.0.1:8085", user_id=10001, token=token, room_id=1) as client:
    msg_id = await client.send_room("hello")  # it is stored
    async for item in client:
        match item:
            case Message(sender_name=name, content=content): ...
"""

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
from qiyu.client.messages import Disconnected, Error, Item, Message, Reconnected, RoomEvent
from qiyu.client.options import Options
from qiyu.client.uplink import Token
from qiyu.protocol.bodies import RoomAnswer

__all__ = [
    "Client",
    "ClientError",
    "ConnectFailed",
    "ConnectionLost",
    "Disconnected",
    "Error",
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
    "Token",
    "connect",
]
