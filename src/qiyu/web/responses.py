"""The envelope of every answer, `{"code", "msg", "data"}`, and how errors come into it."""

from __future__ import annotations

import uuid
from typing import Any, Final

import msgspec
import structlog
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from quart import Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from qiyu.accounts.throttle import TooSoon
from qiyu.errors import CallRefused, DatabaseUnavailable
from qiyu.protocol.bodies import encode_json

log = structlog.get_logger(__name__)

BUSINESS_ERROR: Final = 501
NOT_NOW: Final = 503
_STATUS: Final = {BUSINESS_ERROR: 409}  # to HTTP, 501 is a method that no server knows
_RETRY_SECONDS: Final = 2  # when the database may be back, and a queue shorter


class ResponseData(BaseModel):
    """The `data` of one call's answer."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


def reply(code: int, msg: str, data: Any = None, headers: dict[str, str] | None = None) -> Response:
    """An answer; `data` is anything that msgspec encodes."""
    body = encode_json({"code": code, "msg": msg, "data": data})
    return Response(body, status=_STATUS.get(code, code), content_type="application/json", headers=headers)


def success(data: BaseModel | None = None) -> Response:
    """The answer to a call that was done."""
    return reply(200, "success", None if data is None else msgspec.Raw(data.model_dump_json(by_alias=True).encode()))


async def on_refused(error: CallRefused) -> Response:
    """A service said no."""
    headers = {}
    if isinstance(error, TooSoon):
        headers["Retry-After"] = str(error.seconds)
    elif error.code == NOT_NOW:
        headers["Retry-After"] = str(_RETRY_SECONDS)
    return reply(error.code, error.reason, headers=headers)


async def on_database_unavailable(error: DatabaseUnavailable) -> Response:
    """Nobody's fault here; it may pass."""
    log.warning("a call failed for want of the database", reason=str(error))
    reason = "the database does not answer: try again in a moment"
    return reply(503, reason, headers={"Retry-After": str(_RETRY_SECONDS)})


async def on_http_error(error: HTTPException) -> Response:
    """No such path, not with this method, too long, and what else HTTP itself can have against a request."""
    headers = {}
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return reply(error.code or 500, error.name, headers=headers)


async def on_unknown_error(error: Exception) -> Response:
    """A bug. Whoever asked learns a number to report, and nothing about the inside."""
    request_id = uuid.uuid4().hex
    log.error("a request failed because of a bug", request_id=request_id, exc_info=error)
    return reply(500, f"internal error, request {request_id}")
