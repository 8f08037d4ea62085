"""What every call has in common: who makes it, with which parameters, and what comes back.

    @living.post("/closeLiving")
    @logged_in(CloseLiving)
    async def close_living(asked: CloseLiving, user: User) -> None: ...

A call is refused in this order: 403 for a page that may not make it, 401, 400.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Final, TypeAlias, TypeVar

from pydantic import BaseModel
from quart import Response, request

from qiyu.accounts.throttle import TooSoon
from qiyu.errors import CallRefused
from qiyu.storage.users import User
from qiyu.web.address import client_address, is_secure, packed_address
from qiyu.web.context import WebContext, context
from qiyu.web.openapi import document
from qiyu.web.origin import check_origin
from qiyu.web.params import P, read_params
from qiyu.web.responses import success

COOKIE: Final = "qytk"
HOST_COOKIE: Final = f"__Host-{COOKIE}"
"""Over TLS: browsers take it from this very host alone, and from no neighbour in its domain (RFC 6265bis, 4.1.3.2)."""
_BEARER: Final = "bearer"

Data = TypeVar("Data", bound=BaseModel | None)
View: TypeAlias = Callable[[], Awaitable[Response]]


class Caller:
    """Whoever makes a call, with a session or without."""

    def __init__(self, ctx: WebContext, *, may_use_cookies: bool) -> None:
        self.context = ctx
        self.may_use_cookies = may_use_cookies

    @property
    def address(self) -> str:
        """Whom to count failures to."""
        return client_address(self.context)

    def check_login(self) -> None:
        """Raises `TooSoon` (429) where there are too many logins from the caller's address, here and elsewhere."""
        if not self.context.takes_login(packed_address(self.address), self.context.clock()):
            raise TooSoon(1)

    @property
    def token(self) -> str:
        """The session's secret value, as it was sent, or "". The header goes before the cookie."""
        if "Authorization" in request.headers:
            scheme, _, token = request.headers["Authorization"].partition(" ")
            return token.strip() if scheme.lower() == _BEARER else ""
        return request.cookies.get(cookie_name(self.context), "") if self.may_use_cookies else ""

    async def user(self) -> User | None:
        """Who is logged in. One query, or none where no session was sent."""
        return await self.context.accounts.user_of(self.token, self.context.clock()) if self.token else None


def anyone(
    params: type[P], data: type[BaseModel] | None = None
) -> Callable[[Callable[[P, Caller], Awaitable[BaseModel | Response | None]]], View]:
    """A call that needs no session; the function may ask who the caller is, which is a query."""

    def decorate(function: Callable[[P, Caller], Awaitable[BaseModel | Response | None]]) -> View:
        @wraps(function)
        async def view() -> Response:
            caller = _caller()
            return _answer(await function(await read_params(request, params), caller))

        return document(view, params, data, needs_login=False)

    return decorate


def logged_in(
    params: type[P], data: type[BaseModel] | None = None
) -> Callable[[Callable[[P, User], Awaitable[BaseModel | None]]], View]:
    """A call for those who are logged in."""

    def decorate(function: Callable[[P, User], Awaitable[BaseModel | None]]) -> View:
        @wraps(function)
        async def view() -> Response:
            user = await _caller().user()
            if user is None:
                raise CallRefused(401, "not logged in, or not any more: see /user/login")
            return _answer(await function(await read_params(request, params), user))

        return document(view, params, data, needs_login=True)

    return decorate


def _caller() -> Caller:
    ctx = context()
    return Caller(ctx, may_use_cookies=check_origin(ctx))


def _answer(data: BaseModel | Response | None) -> Response:
    return data if isinstance(data, Response) else success(data)


def is_for_tls(ctx: WebContext) -> bool:
    """Whether the cookie is one for TLS alone."""
    return ctx.secure_cookies or ctx.same_site == "none" or is_secure(ctx)


def cookie_name(ctx: WebContext) -> str:
    """What the cookie is called. A browser takes a `__Host-` one for TLS alone, and for all paths alone."""
    return HOST_COOKIE if is_for_tls(ctx) and not ctx.path else COOKIE


def set_session(response: Response, caller: Caller, token: str) -> Response:
    """Have the browser keep the session, or forget it where `token` is empty."""
    if caller.may_use_cookies:
        ctx = caller.context
        response.set_cookie(
            cookie_name(ctx),
            token,
            max_age=ctx.session_seconds if token else 0,
            path=ctx.path or "/",
            secure=is_for_tls(ctx),
            httponly=True,
            samesite=ctx.same_site.title(),
        )
    return response
