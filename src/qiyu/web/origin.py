"""Pages of other sites: which may call here, and which may do so as whoever is logged in.

A browser sends its cookies with whatever another site's page makes it send, so a cookie counts only where the page is
one of ours: of this host, of an origin in `cors_origins`, or of this machine (services/origins.py). A session in the
`Authorization` header needs no such check: no page can make a browser send that one unasked.

Browsers say of themselves where a call comes from: Sec-Fetch-Site, or, the older ones, Origin. What says neither is no
page in a browser.
"""

from __future__ import annotations

from typing import Final

from quart import Response, request

from qiyu.errors import CallRefused
from qiyu.services.origins import ANY, is_same
from qiyu.web.address import is_secure
from qiyu.web.context import WebContext, context

_PREFLIGHT_SECONDS: Final = "600"


def check_origin(ctx: WebContext) -> bool:
    """Whether the call may use cookies; raises `CallRefused` 403 for a page that may not make it at all."""
    origin = request.headers.get("Origin")
    if _is_from_here(ctx, origin) or _is_of_ours(ctx, origin):
        return True
    if "Authorization" in request.headers or ctx.origins.any:
        return False
    raise CallRefused(
        403, f"Origin {_shown(origin)}: pages of this site may not make this call; see [http] cors_origins"
    )


def _is_of_ours(ctx: WebContext, origin: str | None) -> bool:
    if origin is None:
        return False
    return ctx.origins.lists(origin) or ctx.origins.are_neighbours(origin, request.headers.get("Host", ""))


def _is_from_here(ctx: WebContext, origin: str | None) -> bool:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in {"same-origin", "none"}
    return origin is None or (_has_scheme_of_call(ctx, origin) and is_same(origin, request.headers.get("Host", "")))


def _has_scheme_of_call(ctx: WebContext, origin: str) -> bool:
    """A page that came without TLS, and so from anybody, is another site's to a call that comes with it.

    Not the other way round: a proxy that ends TLS and does not say so makes http of what is https for the page.
    """
    return origin.startswith("https://") or not (ctx.secure_cookies or is_secure(ctx))


def _shown(origin: str | None) -> str:
    return "is absent" if origin is None else ascii(origin[:80])


async def answer_preflight() -> Response | None:
    """A browser asks whether a page may make a call: the headers say it, and `allow_origin` puts the first of them."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return None
    response = Response(b"", status=204)
    if _allowed(context()):
        response.headers["Access-Control-Allow-Methods"] = "GET, POST"
        response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
        response.headers["Access-Control-Max-Age"] = _PREFLIGHT_SECONDS
    return response


async def allow_origin(response: Response) -> Response:
    """Let the page that called read the answer, if it is one that may."""
    ctx = context()
    allowed = _allowed(ctx)
    if ctx.origins.listed or allowed:
        response.vary.add("Origin")
    if allowed:
        response.headers["Access-Control-Allow-Origin"] = allowed
        response.headers["Access-Control-Expose-Headers"] = "Retry-After"
        if allowed != ANY:
            response.headers["Access-Control-Allow-Credentials"] = "true"
    return response


def _allowed(ctx: WebContext) -> str:
    origin = request.headers.get("Origin", "")
    if not origin:
        return ""
    if _is_of_ours(ctx, origin):
        return origin
    return ANY if ctx.origins.any else ""
