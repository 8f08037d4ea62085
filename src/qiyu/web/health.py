"""Whether the process lives, whether it can work, and what it has counted: for whatever watches over it."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import trio
from quart import Blueprint, Response

from qiyu.errors import DatabaseUnavailable, Draining
from qiyu.web.context import context
from qiyu.web.responses import reply

READY_SECONDS: Final = 1
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

health = Blueprint("health", __name__)
inside = Blueprint("inside", __name__)


@health.get("/healthz")
async def healthz() -> Response:
    """The process is alive and its tasks take turns: to answer at all is the news."""
    return reply(200, "success", {"status": "ok"})


@health.get("/readyz")
async def readyz() -> Response:
    """Whether to send clients here: 200 when the database answers within a second, else 503.

    Among several instances, 200 with the status `degraded` where something else is amiss, and why; 503 for one that is
    stopping.
    """
    with trio.move_on_after(READY_SECONDS):
        try:
            reasons = await context().ping()
        except DatabaseUnavailable:
            return _not_ready("the database does not answer")
        except Draining:
            return _not_ready("this instance is stopping", "draining")
        if reasons:
            inside = {"reasons": reasons} if context().shows_inside else {}
            return reply(200, "success", {"status": "degraded", **inside})
        return reply(200, "success", {"status": "ok"})
    return _not_ready(f"the database does not answer within {READY_SECONDS} s")


def _not_ready(why: str, status: str = "unavailable") -> Response:
    return reply(503, why if context().shows_inside else "not ready", {"status": status})


@inside.get("/metrics")
async def metrics() -> Response:
    """How much there is of what comes and goes, and what was counted since the start, as Prometheus reads it."""
    # Loaded when somebody asks, and in a thread, since it takes as long as a slow turn.
    exposition = await trio.to_thread.run_sync(import_module, "qiyu.web.exposition")
    ctx = context()
    text: bytes = exposition.expose(ctx.gauges, ctx.metrics)
    return Response(text, content_type=METRICS_TYPE)
