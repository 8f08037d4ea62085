"""One instance without its sockets: the tables and the services that handlers work with, by name."""

from __future__ import annotations

from dataclasses import dataclass

from qiyu.living.directory import RoomDirectory
from qiyu.living.events import RoomEvents
from qiyu.living.restrictions import Restrictions
from qiyu.living.stream_keys import StreamKeys
from qiyu.living.streams import Streams
from qiyu.metrics import Metrics
from qiyu.routing.hub import Hub
from qiyu.routing.inflight import InFlight
from qiyu.routing.outbox import Outboxes
from qiyu.services.acks import Acks
from qiyu.services.catch_up import CatchUp
from qiyu.services.chat import Chat
from qiyu.services.cluster import Cluster
from qiyu.services.departures import Departures
from qiyu.services.entering import Entering
from qiyu.services.limits import Limits
from qiyu.services.message_queue import MessageQueue
from qiyu.services.origins import Origins
from qiyu.services.pressure import Pressure
from qiyu.services.publishers import Publishers
from qiyu.services.redelivery import Redelivery
from qiyu.services.refusals import Refusals
from qiyu.services.replay import Replays
from qiyu.services.rings import Rings
from qiyu.services.sessions import Sessions
from qiyu.services.sign_outs import SignOuts
from qiyu.services.tokens import Tokens
from qiyu.services.viewers import Viewers


@dataclass(frozen=True, slots=True)
class Node:
    """One instance, without its sockets. Nothing in it waits, and nothing in it looks at a clock."""

    hub: Hub
    in_flight: InFlight
    outboxes: Outboxes
    sessions: Sessions
    departures: Departures
    chat: Chat
    message_queue: MessageQueue
    acks: Acks
    replays: Replays
    catch_up: CatchUp
    entering: Entering
    rings: Rings
    redelivery: Redelivery
    room_directory: RoomDirectory
    room_events: RoomEvents
    restrictions: Restrictions
    tokens: Tokens
    sign_outs: SignOuts
    stream_keys: StreamKeys
    streams: Streams
    publishers: Publishers
    viewers: Viewers
    metrics: Metrics
    limits: Limits
    pressure: Pressure
    origins: Origins
    """Whose pages may open a WebSocket."""
    refusals: Refusals
    ws_path: str = ""
    """What a proxy in front leaves before each path of a WebSocket: `/im`."""
    cluster: Cluster | None = None
    """None for an instance that is alone."""
