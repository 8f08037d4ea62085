"""Pages of other sites: which may call here, and which may do so as whoever is logged in.

A browser sends its cookies with whatever another site's page makes it send, so a cookie counts only where the page is
one of ours: of this host, or of an origin in `cors_origins`. A session in the `Authorization` header needs no such
check: no page can make a browser send that one unasked.

Browsers say of themselves where a call comes from: Sec-Fetch-Site, or, the older ones, Origin. What says neither is no
page in a browser.
"""

from __future__ import annotations

from typing import Final

from quart import Response, request

from qiyu.errors import CallRefused
from qiyu.web.context import WebContext, context

ANY: Final = "*"
_PREFLIGHT_SECONDS: Final = "600"
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def check_origin(ctx: WebContext) -> bool:
    """Whether the call may use cookies; raises `CallRefused` 403 for a page that may not make it at all."""
    origin = request.headers.get("Origin")
    if origin in ctx.cors_origins and origin != ANY:
        return True
    if _is_from_here(origin):
        return True
    if "Authorization" in request.headers or ANY in ctx.cors_origins:
        return False
    raise CallRefused(
        403, f"Origin {_shown(origin)}: pages of this site may not make this call; see [http] cors_origins"
    )


def _is_from_here(origin: str | None) -> bool:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in {"same-origin", "none"}
    return origin is None or _host_of(origin) == _with_port(request.headers.get("Host", ""), origin)


def _host_of(origin: str) -> str:
    return _with_port(origin.partition("://")[2], origin)


def _with_port(host: str, origin: str) -> str:
    # A proxy that ends TLS makes https of what we see as http, so the scheme that counts is the page's.
    port = _DEFAULT_PORTS.get(origin.partition("://")[0], "")
    has_port = host.rpartition("]")[2].count(":") == 1
    return (host if has_port else f"{host}:{port}").lower()


def _shown(origin: str | None) -> str:
    return ascii((origin or "")[:80])


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
    if not ctx.cors_origins:
        return response
    response.vary.add("Origin")
    allowed = _allowed(ctx)
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
    if origin in ctx.cors_origins and origin != ANY:
        return origin
    return ANY if ANY in ctx.cors_origins else ""
