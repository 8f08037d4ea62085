"""/im: what a client needs to connect, who is connected, and what was said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import trio
from pydantic import RootModel
from quart import Blueprint

from qiyu.presence import presence
from qiyu.protocol.packet import APP_ID
from qiyu.services.cluster import Cluster
from qiyu.storage.users import User
from qiyu.web.address import called_host
from qiyu.web.calls import logged_in
from qiyu.web.context import WebContext, context
from qiyu.web.params import MsgId, NoParams, PageSize, Params, RoomId, UserId, UserIds
from qiyu.web.responses import ResponseData

if TYPE_CHECKING:
    from qiyu.storage.messages import Stored

PRESENCE_SECONDS: Final = 2.0

im = Blueprint("im", __name__, url_prefix="/im")


class ImConfig(ResponseData):
    """Where to connect, and with what; `wsUrl` is null where `ws://` and the address are all there is to say."""

    token: str
    ws_im_server_address: str
    tcp_im_server_address: str
    ws_url: str | None


class OnlineQuestion(Params):
    """What online takes."""

    user_ids: UserIds


class Online(RootModel[dict[int, bool]]):
    """Whether each user is connected."""


class HistoryQuestion(Params):
    """What history takes: a room or a user, and from where on backwards."""

    one_of = ("roomId", "objectId")

    room_id: RoomId = 0
    object_id: UserId = 0
    before_msg_id: MsgId = ""
    limit: PageSize = 50


class HistoryMessage(ResponseData):
    """A message as the body of the packet that brings it."""

    app_id: int
    user_id: int
    biz_code: int
    data: str
    msg_id: str


class OwnHistoryMessage(HistoryMessage):
    """One that the caller has sent, with the `clientMsgId` it had."""

    client_msg_id: str


class HistoryPage(ResponseData):
    """A page of messages, the newest last."""

    messages: list[OwnHistoryMessage | HistoryMessage]
    has_more: bool


@im.post("/getImConfig")
@logged_in(NoParams, ImConfig)
async def get_im_config(_asked: NoParams, user: User) -> ImConfig:
    """A login token for the messaging side, and its addresses."""
    ctx = context()
    place = _least_loaded(ctx)
    return ImConfig(
        token=ctx.tokens.issue(
            user.id,
            nickname=user.nick_name,
            avatar=user.avatar,
            http_session=user.http_session,
            now_ms=ctx.clock().unix_ms,
        ),
        ws_im_server_address=_ws_address(place),
        tcp_im_server_address=place.tcp_public_address or f"{called_host()}:{place.tcp_port}",
        ws_url=_ws_url(ctx, place),
    )


@im.post("/online")
@logged_in(OnlineQuestion, Online)
async def online(asked: OnlineQuestion, _user: User) -> Online:
    """Which of these users are connected, by their ids."""
    ctx = context()
    here = {user_id: ctx.hub.find(APP_ID, user_id) is not None for user_id in asked.user_ids}
    if ctx.cluster is not None:
        elsewhere = await _pinned(ctx.cluster, [user_id for user_id, is_here in here.items() if not is_here])
        here.update(dict.fromkeys(elsewhere, True))
    return Online(here)


@im.post("/history")
@logged_in(HistoryQuestion, HistoryPage)
async def history(asked: HistoryQuestion, user: User) -> HistoryPage:
    """What was said in a room or with a user, a page at a time, from the newest on backwards."""
    ctx = context()
    find = ctx.history.of_room if asked.room_id else ctx.history.of_conversation
    messages, has_more = await find(
        user.id,
        asked.room_id or asked.object_id,
        before=int(asked.before_msg_id) if asked.before_msg_id else None,
        limit=asked.limit,
        now=ctx.clock(),
    )
    return HistoryPage(messages=[_for_reader(message, user.id) for message in messages], has_more=has_more)


def _for_reader(message: Stored, user_id: int) -> HistoryMessage:
    found = HistoryMessage(
        app_id=message.app_id,
        user_id=user_id,  # in any packet, who receives it; who sent it stands in `data`
        biz_code=message.biz_code,
        data=message.data,
        msg_id=str(message.msg_id),
    )
    if message.user_id != user_id or not message.client_msg_id:
        return found
    return OwnHistoryMessage(**found.model_dump(), client_msg_id=message.client_msg_id)


class _Place(NamedTuple):
    """Where a client is sent."""

    tcp_public_address: str
    tcp_port: int
    ws_public_url: str
    ws_address: str
    ws_port: int


def _least_loaded(ctx: WebContext) -> _Place:
    """This instance; of several, the one with the fewest connections."""
    if ctx.cluster is None:
        return _Place(ctx.tcp_public_address, ctx.tcp_port, ctx.ws_public_url, "", ctx.ws_port)
    lease = ctx.cluster.least_loaded()
    return _Place(lease.tcp_address, lease.tcp_port, lease.ws_url, lease.ws_address, lease.ws_port)


async def _pinned(cluster: Cluster, user_ids: Sequence[int]) -> list[int]:
    """Who of these is connected to an instance that lives; nobody, where that cannot be found out soon."""
    found: list[int] = []
    answered = trio.Event()

    def then(pins: dict[presence.User, presence.Pin | None] | None) -> None:
        found.extend(user.user_id for user, pin in (pins or {}).items() if pin is not None)
        answered.set()

    if user_ids:
        cluster.find_pins([presence.User(APP_ID, user_id) for user_id in user_ids], then)
        with trio.move_on_after(PRESENCE_SECONDS):
            await answered.wait()
    return found


def _ws_url(ctx: WebContext, place: _Place) -> str | None:
    """With its scheme, where the address alone does not say enough; path and TLS are the same on all instances."""
    if not place.ws_public_url and (ctx.ws_path or "ws" in ctx.tls_listeners):
        scheme = "wss" if "ws" in ctx.tls_listeners else "ws"
        return f"{scheme}://{place.ws_address or f'{called_host()}:{place.ws_port}'}{ctx.ws_path}"
    return place.ws_public_url or None


def _ws_address(place: _Place) -> str:
    if not place.ws_public_url:
        return place.ws_address or f"{called_host()}:{place.ws_port}"
    url = urlsplit(place.ws_public_url)
    if url.port is not None:
        return url.netloc
    return f"{url.netloc}:{443 if url.scheme == 'wss' else 80}"
