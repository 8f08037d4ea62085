"""/im: what a client needs to connect, and who is connected."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import RootModel
from quart import Blueprint

from qiyu.protocol.packet import APP_ID
from qiyu.storage.users import User
from qiyu.web.address import called_host
from qiyu.web.answers import Answer
from qiyu.web.calls import logged_in
from qiyu.web.context import WebContext, context
from qiyu.web.params import NoParams, Params, UserIds

im = Blueprint("im", __name__, url_prefix="/im")


class ImConfig(Answer):
    """Where to connect, and with what; `wsUrl` is null where none is configured."""

    token: str
    ws_im_server_address: str
    tcp_im_server_address: str
    ws_url: str | None


class OnlineQuestion(Params):
    """What online takes."""

    user_ids: UserIds


class Online(RootModel[dict[int, bool]]):
    """Whether each user is connected."""


@im.post("/getImConfig")
@logged_in(NoParams, ImConfig)
async def get_im_config(_asked: NoParams, user: User) -> ImConfig:
    """A login token for the messaging side, and its addresses."""
    ctx = context()
    return ImConfig(
        token=ctx.tokens.issue(user.id, nickname=user.nick_name, avatar=user.avatar, now_ms=ctx.clock().unix_ms),
        ws_im_server_address=_ws_address(ctx),
        tcp_im_server_address=ctx.tcp_public_address or f"{called_host()}:{ctx.tcp_port}",
        ws_url=ctx.ws_public_url or None,
    )


@im.post("/online")
@logged_in(OnlineQuestion, Online)
async def online(asked: OnlineQuestion, _user: User) -> Online:
    """Which of these users are connected, by their ids."""
    hub = context().hub
    return Online({user_id: hub.find(APP_ID, user_id) is not None for user_id in asked.user_ids})


def _ws_address(ctx: WebContext) -> str:
    if not ctx.ws_public_url:
        return f"{called_host()}:{ctx.ws_port}"
    url = urlsplit(ctx.ws_public_url)
    if url.port is not None:
        return url.netloc
    return f"{url.netloc}:{443 if url.scheme == 'wss' else 80}"
