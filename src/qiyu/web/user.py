"""/user: registering, logging in and out."""

from __future__ import annotations

from quart import Blueprint, Response

from qiyu.accounts.accounts import Login
from qiyu.errors import CallRefused
from qiyu.web.calls import Caller, anyone, set_session
from qiyu.web.params import AnyText, Image, Name, NewPassword, NickName, NoParams, Params, Secret
from qiyu.web.responses import ResponseData, success

user = Blueprint("user", __name__, url_prefix="/user")


class Registration(Params):
    """What register takes."""

    name: Name
    password: NewPassword
    nick_name: NickName = ""
    avatar: Image = ""


class Credentials(Params):
    """What login takes."""

    name: AnyText
    password: Secret


class LoggedIn(ResponseData):
    """Who one is now; `token` is the value of the cookie, for clients without cookies."""

    user_id: int
    token: str


@user.post("/register")
@anyone(Registration, LoggedIn)
async def register(asked: Registration, caller: Caller) -> Response:
    """Make an account, and log in with it; 403 where registration is closed."""
    if not caller.context.is_registration_open:
        raise CallRefused(403, "registration is closed here: whoever runs the server makes the accounts")
    caller.check_login()
    login = await caller.context.accounts.register(
        asked.name,
        asked.password,
        asked.nick_name,
        asked.avatar,
        address=caller.address,
        now=caller.context.clock(),
    )
    return _logged_in(login, caller)


@user.post("/login")
@anyone(Credentials, LoggedIn)
async def log_in(asked: Credentials, caller: Caller) -> Response:
    """Open a session."""
    caller.check_login()
    login = await caller.context.accounts.log_in(
        asked.name, asked.password, address=caller.address, now=caller.context.clock()
    )
    return _logged_in(login, caller)


@user.post("/logout")
@anyone(NoParams)
async def log_out(_asked: NoParams, caller: Caller) -> Response:
    """End the session that the call came with; without one there is nothing to do."""
    await caller.context.accounts.log_out(caller.token, caller.context.clock())
    return set_session(success(), caller, "")


def _logged_in(login: Login, caller: Caller) -> Response:
    return set_session(success(LoggedIn(user_id=login.user_id, token=login.token)), caller, login.token)
