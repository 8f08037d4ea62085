"""All services of one instance, by name: what a handler is given to work with."""

from __future__ import annotations

from dataclasses import dataclass

from qiyu.metrics import Metrics
from qiyu.routing.hub import Hub
from qiyu.routing.inflight import InFlight
from qiyu.services.catch_up import CatchUp
from qiyu.services.chat import Chat
from qiyu.services.connections import Connections
from qiyu.services.inbox import Inbox
from qiyu.services.living_rooms import LivingRooms
from qiyu.services.message_log import MessageLog
from qiyu.services.recent import RecentMessages
from qiyu.services.redelivery import Redelivery
from qiyu.services.room_events import RoomEvents
from qiyu.services.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Core:
    """One instance, without its sockets. Nothing in it waits, and nothing in it looks at a clock."""

    hub: Hub
    in_flight: InFlight
    connections: Connections
    chat: Chat
    message_log: MessageLog
    inbox: Inbox
    catch_up: CatchUp
    recent: RecentMessages
    redelivery: Redelivery
    living_rooms: LivingRooms
    room_events: RoomEvents
    tokens: Tokens
    metrics: Metrics
    allowed_origins: frozenset[str]
    """Web origins whose pages may open a WebSocket; `*` for any, empty for pages of this machine only."""
