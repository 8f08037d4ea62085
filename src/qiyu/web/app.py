"""The HTTP application: every answer is `{"code", "msg", "data"}`, and HTTP's status is `code` (docs/protocol.md)."""

from __future__ import annotations

import uuid
from typing import Any

import structlog
from quart import Response
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from qiyu.protocol.bodies import encode_json
from qiyu.web.health import health

log = structlog.get_logger(__name__)

MAX_REQUEST_BYTES = 64 * 1024


def make_app() -> QuartTrio:
    """The application, ready to be served."""
    app = QuartTrio("qiyu")
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    app.register_blueprint(health)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unknown_error)
    return app


def reply(code: int, msg: str, data: Any = None) -> Response:
    """An answer in the envelope all of them have."""
    body = encode_json({"code": code, "msg": msg, "data": data})
    return Response(body, status=code, content_type="application/json")


async def _http_error(error: HTTPException) -> Response:
    return reply(error.code or 500, error.name)


async def _unknown_error(error: Exception) -> Response:
    # Whoever asked learns a number to report, and nothing about the inside.
    request_id = uuid.uuid4().hex
    log.error("a request failed because of a bug", request_id=request_id, exc_info=error)
    return reply(500, f"internal error, request {request_id}")
