"""What the calls of one instance work with; `make_app` is given it, and every call finds it again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, cast

from quart import current_app

from qiyu.services.origins import Origins

if TYPE_CHECKING:
    from qiyu.accounts.accounts import Accounts
    from qiyu.living.directory import RoomDirectory
    from qiyu.living.engines import Engines
    from qiyu.living.history import History
    from qiyu.living.moderation import Moderation
    from qiyu.living.restrictions import Restrictions
    from qiyu.living.rooms import LivingRooms
    from qiyu.living.stream_keys import StreamKeys
    from qiyu.living.streams import Streams
    from qiyu.metrics import Gauge, Metrics
    from qiyu.model import Address, Instant, Network
    from qiyu.routing.hub import Hub
    from qiyu.services.cluster import Cluster
    from qiyu.services.tokens import Tokens


EXTENSION: Final = "qiyu"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebContext:
    """The services, and what the settings say about HTTP."""

    accounts: Accounts
    living_rooms: LivingRooms
    room_directory: RoomDirectory
    restrictions: Restrictions
    moderation: Moderation
    history: History
    tokens: Tokens
    stream_keys: StreamKeys
    streams: Streams
    engine_pushes: Engines
    hub: Hub
    metrics: Metrics
    gauges: Mapping[str, Gauge]
    """By name, what rises and falls: sessions, messages that wait."""
    clock: Callable[[], Instant]
    ping: Callable[[], Awaitable[Sequence[str]]]
    """Asks the database for nothing; raises DatabaseUnavailable, or takes its time, where that does not work, and
    Draining for an instance that stops. Returns what else does not work."""
    tcp_port: int
    ws_port: int
    tcp_public_address: str = ""
    """`host:port` for clients; empty: the host that the call came to, with `tcp_port`."""
    ws_public_url: str = ""
    """With its scheme, such as wss://live.example.com/im; empty: the host that the call came to, with `ws_port`."""
    ws_path: str = ""
    """What the path of each WebSocket begins with here, such as /im."""
    tls_listeners: frozenset[str] = frozenset()
    """Which of `tcp`, `ws`, `http` and `rtmp` speak TLS here."""
    cluster: Cluster | None = None
    """None for an instance that is alone."""
    rtmp_port: int = 0
    """0 where no pictures come in here."""
    rtmp_public_url: str = ""
    """What encoders are told to push to; empty: the host that the call came to, with `rtmp_port`."""
    play_url: str = ""
    """Where an engine or a CDN shows pictures, with {room} for the room; empty: the WebSocket port."""
    are_pictures_open: bool = False
    """Whether they may be watched without a login."""
    engines: tuple[Network, ...] = ()
    """Who may call /media."""
    origins: Origins = field(default_factory=Origins)
    """Whose pages may make calls here, with their cookies; `*` for any page, without."""
    is_registration_open: bool = True
    """Whether anybody may make an account."""
    shows_inside: bool = True
    """Whether /metrics, /docs and what /readyz knows are shown here; false where they have a port of their own."""
    path: str = ""
    """What a proxy in front has before each path, such as /live."""
    takes_login: Callable[[Address, Instant], bool] = lambda _address, _now: True
    """Whether one more login may be tried from this address now."""
    trusted_proxies: tuple[Network, ...] = ()
    """Peers whose Forwarded, X-Forwarded-For and X-Forwarded-Proto headers are believed."""
    secure_cookies: bool = False
    """Whether the cookie is for TLS alone even where the call seems to have come without."""
    same_site: Literal["lax", "strict", "none"] = "lax"
    """The cookie's SameSite; with `none` it is for TLS alone, as browsers want it."""
    session_seconds: int = 30 * 86_400


def context() -> WebContext:
    """The one of the application that deals with the request."""
    return cast("WebContext", current_app.extensions[EXTENSION])
