"""Starts servers on free ports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from qiyu import app
from qiyu.config import Settings, load_settings
from qiyu.drivers.event_source import EventSource, SelectorSource, best_source
from qiyu.run import serve
from servers import SECRET, RunningServer, Start


@pytest.fixture(params=[best_source, SelectorSource], ids=["best", "selectors"])
def start_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Start:
    """Starts a server, once on each event source; keyword arguments are settings, `limits__connections=1`."""
    source: Callable[[], EventSource] = request.param
    monkeypatch.setattr(app, "best_source", source)

    @asynccontextmanager
    async def start(**changes: Any) -> AsyncIterator[RunningServer]:
        defaults = {
            "tcp__port": 0,
            "ws__port": 0,
            "http__port": 0,
            "rtmp__port": 0,
            "data__dir": tmp_path,
            "auth__secret": SECRET,
        }
        defaults |= {"living__require_open_room": "false", "living__events": "false"}
        defaults |= {f"limits__{name}_per_second": 0 for name in ("messages", "packets", "logins")}
        defaults |= {
            "ack__retry_seconds": 60
        }  # on a machine that is slow, nothing comes twice that no test expects twice

        def load(more: dict[str, Any]) -> Settings:
            found = (defaults | changes | more).items()
            return load_settings(environ={f"QIYU_{name.upper()}": str(value) for name, value in found})

        settings = load({})
        send_settings, reloads = trio.open_memory_channel[Settings](0)
        stopped = trio.Event()
        send_stop, stops = trio.open_memory_channel[int](10)
        async with send_stop, stops, send_settings, reloads, trio.open_nursery() as nursery:

            async def run(task_status: trio.TaskStatus[dict[str, str]]) -> None:
                await serve(settings, stops, lambda _line: None, reloads=reloads, task_status=task_status)
                stopped.set()

            addresses = await nursery.start(run)
            running = RunningServer(addresses, settings, lambda: send_stop.send_nowait(15), stopped)
            running.load_settings, running.send_settings = load, send_settings
            yield running
            nursery.cancel_scope.cancel()

    return start


@pytest.fixture
async def server(start_server: Start) -> AsyncIterator[RunningServer]:
    """A server with the default settings."""
    async with start_server() as running:
        yield running
