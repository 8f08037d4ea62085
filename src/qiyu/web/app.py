"""The HTTP application: every answer is `{"code", "msg", "data"}`, and HTTP's status is `code` (docs/http-api.md)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
from quart import Blueprint, Response
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from qiyu.errors import CallRefused, DatabaseUnavailable
from qiyu.protocol.authority import split_target
from qiyu.protocol.bodies import encode_json
from qiyu.web import responses
from qiyu.web.address import NO_HOST, is_host
from qiyu.web.context import EXTENSION, WebContext
from qiyu.web.health import health, inside
from qiyu.web.home import home
from qiyu.web.im import im
from qiyu.web.living import living
from qiyu.web.media import media
from qiyu.web.moderation import moderation
from qiyu.web.openapi import add_openapi, describe_instead, docs
from qiyu.web.origin import allow_origin, answer_preflight
from qiyu.web.page import page
from qiyu.web.user import user

MAX_REQUEST_BYTES: Final = 64 * 1024
MAX_FORM_PARTS: Final = 100

# What an answer says unless it has said something else about it.
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class _Application(QuartTrio):
    """Turns away what would not reach the error handlers below."""

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "http":
            prefix: str = self.extensions[EXTENSION].path
            scope = _in_origin_form(scope)
            if prefix and scope["path"] == prefix:
                await _redirect(send, f"{prefix}/")  # or the page's addresses, which are relative, would go astray
                return
            scope = _below(prefix, scope)
        if scope["type"] == "http" and (reason := _fault_of(scope)):
            body = encode_json({"code": 400, "msg": reason, "data": None})
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 400, "headers": headers, "trailers": False})
            await send({"type": "http.response.body", "body": body, "more_body": False})
            return
        await super().__call__(scope, receive, send)


def _in_origin_form(scope: HTTPScope) -> HTTPScope:
    """The request as if it had named its host in Host and nowhere else; proxies may write it into the target."""
    path, host = split_target(scope["path"])
    if host is None:
        return scope
    raw_path, _ = split_target(scope["raw_path"].decode("latin-1"))
    headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"host"]
    headers.append((b"host", host.encode("latin-1", "replace")))
    return {**scope, "path": path, "raw_path": raw_path.encode("latin-1"), "headers": headers}


def _below(prefix: str, scope: HTTPScope) -> HTTPScope:
    """The request as if it stood below no path; a proxy in front may have taken that away already."""
    path = scope["path"]
    if not prefix or not path.startswith(f"{prefix}/"):
        return scope
    return {**scope, "path": path.removeprefix(prefix), "raw_path": scope["raw_path"].removeprefix(prefix.encode())}


async def _redirect(send: ASGISendCallable, to: str) -> None:
    headers = [(b"location", to.encode()), (b"content-length", b"0"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 308, "headers": headers, "trailers": False})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _fault_of(scope: HTTPScope) -> str:
    if scope["http_version"] not in {"1.0", "1.1"}:
        return "HTTP/2 is the business of a proxy in front"
    for name, value in scope["headers"]:
        if name.lower() == b"host" and not is_host(value.decode("latin-1")):
            return NO_HOST
    return ""


def make_app(context: WebContext) -> QuartTrio:
    """The application, ready to be served."""
    blueprints = [page, home, living, moderation, im, user, media, health]
    app = _make(context, [*blueprints, inside, docs] if context.shows_inside else blueprints)
    add_openapi(app, context.path)
    return app


def make_admin_app(context: WebContext, public: QuartTrio) -> QuartTrio:
    """What whoever runs the server sees on a port of its own; `public` is the application that /docs describes."""
    app = _make(replace(context, shows_inside=True, path=""), [health, inside, docs])
    describe_instead(app, public)
    return app


def _make(context: WebContext, blueprints: Iterable[Blueprint]) -> QuartTrio:
    app = _Application("qiyu", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    app.config["MAX_FORM_PARTS"] = MAX_FORM_PARTS
    app.config["BODY_TIMEOUT"] = app.config["RESPONSE_TIMEOUT"] = None  # whoever serves it has deadlines of its own
    app.url_map.merge_slashes = False  # what has too many is not to be redirected anywhere
    app.extensions[EXTENSION] = context
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    app.register_error_handler(CallRefused, responses.on_refused)
    app.register_error_handler(DatabaseUnavailable, responses.on_database_unavailable)
    app.register_error_handler(HTTPException, responses.on_http_error)
    app.register_error_handler(Exception, responses.on_unknown_error)
    app.before_request(answer_preflight)
    app.after_request(allow_origin)
    app.after_request(_add_headers)
    return app


async def _add_headers(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response
