"""/home: what the first page shows."""

from __future__ import annotations

from quart import Blueprint

from qiyu.living.anchors import may_go_live
from qiyu.web.calls import Caller, anyone
from qiyu.web.images import DEFAULT_AVATAR
from qiyu.web.params import NoParams
from qiyu.web.responses import ResponseData

home = Blueprint("home", __name__, url_prefix="/home")


class HomePage(ResponseData):
    """Who is logged in, `userId` is 0 for nobody; and whether anybody may make an account."""

    login_status: bool
    user_id: int
    nick_name: str | None
    avatar: str | None
    show_start_living_btn: bool
    registration_open: bool


@home.post("/initPage")
@anyone(NoParams, HomePage)
async def init_page(_asked: NoParams, caller: Caller) -> HomePage:
    """Who the caller is, and whether they may go live."""
    user = await caller.user()
    is_open = caller.context.is_registration_open
    if user is None:
        return HomePage(
            login_status=False,
            user_id=0,
            nick_name=None,
            avatar=None,
            show_start_living_btn=False,
            registration_open=is_open,
        )
    return HomePage(
        login_status=True,
        user_id=user.id,
        nick_name=user.nick_name,
        avatar=user.avatar or DEFAULT_AVATAR,
        show_start_living_btn=may_go_live(user),
        registration_open=is_open,
    )
