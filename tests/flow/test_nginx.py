"""deploy/nginx-rtmp.conf with a real nginx: it asks who may push, tells when that is over, and makes HLS of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from clips import needs_ffmpeg
from flow.test_video import ON_ONE_SOURCE, open_show
from servers import Start
from video import encoder, free_port

NGINX = shutil.which("nginx")
CONFIG = Path(__file__).parent.parent.parent / "deploy/nginx-rtmp.conf"
HAS_MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so").exists()

pytestmark = [
    needs_ffmpeg,
    ON_ONE_SOURCE,
    pytest.mark.skipif(NGINX is None or not HAS_MODULE, reason="nginx with its rtmp module is not installed"),
]


@asynccontextmanager
async def nginx(folder: Path, http: str, rtmp_port: int, hls_port: int) -> AsyncIterator[Path]:
    """nginx with the configuration as it is delivered, but for ports and folders. Yields the folder of its HLS."""
    pictures = folder / "hls"
    pictures.mkdir(mode=0o777)
    pictures.chmod(0o777)
    for parent in (folder, *folder.parents):
        if str(parent).startswith("/tmp/pytest"):  # noqa: S108
            parent.chmod(0o755)
    text = CONFIG.read_text("utf-8")
    for old, new in {
        "listen 1935": f"listen 127.0.0.1:{rtmp_port}",
        "listen 8088": f"listen 127.0.0.1:{hls_port}",
        "127.0.0.1:8080": http,
        "/run/nginx-rtmp.pid": str(folder / "nginx.pid"),
        "/tmp/nginx-rtmp-hls": str(pictures),  # noqa: S108
        "notify_update_timeout 10s": "notify_update_timeout 1s",
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    config = folder / "nginx.conf"
    config.write_text(text, "utf-8")
    command = [str(NGINX), "-c", str(config), "-g", "daemon off;"]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(lambda task_status: _run(command, task_status))
        with trio.fail_after(10):
            while True:
                try:
                    stream = await trio.open_tcp_stream("127.0.0.1", rtmp_port)
                except OSError:
                    await trio.sleep(0.05)
                else:
                    await stream.aclose()
                    break
        yield pictures
        process.terminate()


async def _run(command: list[str], task_status: trio.TaskStatus[trio.Process]) -> None:
    await trio.run_process(command, stdout=subprocess.DEVNULL, check=False, task_status=task_status)


async def test_an_engine_in_front_asks_and_tells(start_server: Start, tmp_path: Path) -> None:
    rtmp_port, hls_port = free_port(), free_port()
    settings = {
        "rtmp__port": 0,
        "rtmp__public_url": f"rtmp://127.0.0.1:{rtmp_port}/live",
        "video__engines": '["127.0.0.1"]',
        "video__play_url": f"http://127.0.0.1:{hls_port}/hls/{{room}}.m3u8",
    }
    async with (
        open_show(start_server, tmp_path, **settings) as show,
        nginx(tmp_path, show.server.http, rtmp_port, hls_port),
        await show.server.ws_peer(show.guest, show.room) as member,
    ):
        url = await show.push_url()
        async with encoder(url[:-3] + "AAA") as refused:
            assert await refused.said()
        async with encoder(url) as anchor:
            await member.next_event("onAir")
            async with encoder(url) as second:
                assert await second.said()
            assert await show.is_on_air()
            play_url = (await show.config())["playUrl"]
            playlist = await fetch(play_url)
            assert re.search(r"^1-\d+\.ts$|^\d+-\d+\.ts$|\.ts$", playlist, re.MULTILINE)
            await anchor.stop()
        await member.next_event("offAir")
        async with encoder(url) as anchor:
            await member.next_event("onAir")
            await show.close()
            assert await anchor.said()  # at nginx's next word


async def fetch(url: str) -> str:
    """A playlist, once there is one."""

    def ask() -> str:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
                return str(answer.read().decode())
        except OSError:
            return ""

    with trio.fail_after(20):
        while True:
            text = await trio.to_thread.run_sync(ask)
            if ".ts" in text:
                return text
            await trio.sleep(0.2)
