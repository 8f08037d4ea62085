"""The page's player in a real browser: it plays at real speed, close to the live edge, and comes back by itself."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio

from chromium import Browser, needs_chromium, open_page
from clips import AAC, H264, H264_AT_ONCE, needs_ffmpeg
from flow.test_video import Show, open_show
from qiyu.drivers.event_source import best_source
from servers import Start
from video import encoder

HERE = Path(__file__).parent.parent
PLAYER = HERE.parent / "src/qiyu/web/pages/player.js"

# The poller on another event source is tested by itself, and by all else in this folder.
ON_ONE_SOURCE = pytest.mark.parametrize("start_server", [best_source], indirect=True, ids=["best"])

pytestmark = [needs_ffmpeg, needs_chromium, ON_ONE_SOURCE]

IS_PLAYING = "() => window.states.at(-1) === 'playing' && document.getElementById('video').currentTime > 0.5"
IS_WAITING = "() => window.states.at(-1) === 'waiting'"
# How bright the picture is in four places, from 0 to 255.
PIXELS = """() => {
  const video = document.getElementById("video");
  const canvas = Object.assign(document.createElement("canvas"), {width: 64, height: 36});
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 64, 36);
  return [[8, 8], [24, 8], [40, 8], [56, 8]].map(([x, y]) => {
    const [red, green, blue] = context.getImageData(x, y, 1, 1).data;
    return Math.max(red, green, blue);
  });
}"""
VIDEO = """() => {
  const {currentTime, buffered, videoWidth} = document.getElementById("video");
  const end = buffered.length ? buffered.end(buffered.length - 1) : 0;
  const begin = buffered.length ? buffered.start(0) : 0;
  return {currentTime, end, kept: end - begin, videoWidth, states: window.states};
}"""


class _Files(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        return str(PLAYER if path.startswith("/player.js") else HERE / "player.html")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Not into the tests' output."""


@pytest.fixture
def page_url() -> Iterator[str]:
    """Where the test page is."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.fixture
async def show(start_server: Start, tmp_path: Path) -> AsyncIterator[Show]:
    async with open_show(start_server, tmp_path) as made:
        yield made


@asynccontextmanager
async def watching(show: Show, page_url: str) -> AsyncIterator[Browser]:
    """A browser in which the room's picture is played, or waited for."""
    config = await show.config(as_anchor=False)
    login = {"appId": 10001, "userId": show.guest, "token": show.server.token(show.guest)}
    asked = urlencode({"url": config["playUrl"], "login": json.dumps(login)})
    async with open_page(f"{page_url}?{asked}") as browser:
        yield browser


# What x264 does when it is told nothing but this: three B-frames, look-ahead of forty frames.
TWO_SECONDS = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "50", "-keyint_min", "50", "-bf", "3", *AAC)


@pytest.mark.parametrize(
    "options",
    [(*H264_AT_ONCE, *AAC), (*H264, *AAC), TWO_SECONDS],
    ids=["at once", "with B-frames", "with B-frames and a key frame in two seconds"],
)
async def test_it_plays_at_real_speed_and_is_not_black(show: Show, page_url: str, options: tuple[str, ...]) -> None:
    async with encoder(await show.push_url(), *options, size="320x180"), watching(show, page_url) as browser:
        await browser.wait(IS_PLAYING)
        await trio.sleep(2)  # a little faster, until it is near the live edge
        begun, before = time.monotonic(), await browser.evaluate(VIDEO)
        await trio.sleep(3)
        after = await browser.evaluate(VIDEO)
        elapsed = time.monotonic() - begun
        played, came = (after[name] - before[name] for name in ("currentTime", "end"))
        speed = played / elapsed
        pixels = await browser.evaluate(PIXELS)
    # Said in full, for it may be the encoder that did not keep up.
    assert 0.75 < speed < 1.3, f"played {played:.2f} s, of {came:.2f} s that came in {elapsed:.2f} s"
    assert max(pixels) > 100
    assert len(set(pixels)) > 1  # the test picture has bars of several colours
    assert after["videoWidth"] == 320
    assert after["end"] - after["currentTime"] < 2
    assert after["kept"] < 20


async def test_it_waits_for_a_picture_and_comes_back(show: Show, page_url: str) -> None:
    url = await show.push_url()
    async with watching(show, page_url) as browser:
        await browser.wait(IS_WAITING)
        async with encoder(url, size="320x180") as first:
            await browser.wait(IS_PLAYING)
            first.kill()
            await browser.wait(IS_WAITING)
        async with encoder(url, size="320x180"):
            await browser.wait(IS_PLAYING)
        states = (await browser.evaluate(VIDEO))["states"]
        await show.close()
        await browser.wait("() => window.states.at(-1) === 'ended'")
        await browser.evaluate("() => window.stop()")
        assert await browser.evaluate("() => document.getElementById('video').src") == ""
    assert states[:5] == ["connecting", "waiting", "playing", "waiting", "playing"]
