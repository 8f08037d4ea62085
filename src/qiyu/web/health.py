"""GET /healthz: the process is alive and its tasks take turns."""

from __future__ import annotations

from quart import Blueprint

health = Blueprint("health", __name__)


@health.get("/healthz")
async def healthz() -> dict[str, object]:
    """Answer at all: that is the news."""
    return {"code": 200, "msg": "success", "data": {"status": "ok"}}
