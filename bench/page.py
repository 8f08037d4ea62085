"""`python -m bench.page`: what the page weighs, how it does on a slow network, and how it bears a burst of messages."""

from __future__ import annotations

import json
import socket
import statistics
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from demo.__main__ import PASSWORD, open_rooms
from demo.screenshots import free_ports
from demo.server import Demo, demo_server
from playwright.sync_api import Browser, Page, sync_playwright

from bench import machine
from bench.video.latency import FLAGS, chromium
from qiyu.protocol.packet import APP_ID, MAGIC

MESSAGES: Final = 1000
ROUNDS: Final = 5
SPEAKER: Final = 700_000
SLOW: Final = {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}
"""400 kbit/s and 400 ms, as Chromium's own slow 3G has it."""
LIMITS: Final = {f"QIYU_LIMITS__{name}": "0" for name in ("MESSAGES_PER_SECOND", "PACKETS_PER_SECOND")}
FRAMES: Final = """() => {
  window.frames_ = [];
  let before = performance.now();
  const next = (now) => { window.frames_.push(now - before); before = now; requestAnimationFrame(next); };
  requestAnimationFrame((now) => { before = now; requestAnimationFrame(next); });
}"""


class Visitor:
    """Somebody with a browser."""

    def __init__(self, browser: Browser, demo: Demo) -> None:
        self._browser = browser
        self._url = demo.url
        _, self._session = demo.account("visitor", "visitor", PASSWORD)

    @contextmanager
    def page(self, *, is_slow: bool = False) -> Iterator[Page]:
        """A page of a browser that was never here before."""
        context = self._browser.new_context(viewport={"width": 1280, "height": 800})
        context.add_cookies([{"name": "qytk", "value": self._session, "url": self._url}])
        page = context.new_page()
        page.set_default_timeout(120_000)
        if is_slow:
            tools = context.new_cdp_session(page)
            tools.send("Network.enable")
            tools.send("Network.emulateNetworkConditions", SLOW)
        yield page
        context.close()


class Speaker:
    """Somebody who talks over plain TCP, as fast as it can."""

    def __init__(self, demo: Demo, room_id: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", demo.ports["tcp"]), 10)
        self._room_id = room_id
        room = json.dumps({"roomId": room_id})
        self._send(1001, appId=APP_ID, userId=SPEAKER, token=demo.token(SPEAKER, "speaker"), data=room)
        self._socket.recv(65_536)

    def say(self, *contents: str) -> None:
        """All of it at once."""
        for content in contents:
            self._send(1003, bizCode=5555, data=json.dumps({"roomId": self._room_id, "content": content}))

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def _send(self, code: int, **fields: object) -> None:
        body = json.dumps(fields).encode()
        self._socket.sendall(struct.pack(">hii", MAGIC, code, len(body)) + body)


def main() -> None:
    """Measure and print."""
    print(", ".join(f"{name}: {value}" for name, value in machine.description().items()))
    ports = dict(zip(("tcp", "ws", "http"), free_ports(3), strict=True)) | {"rtmp": 0}
    with demo_server(ports, **LIMITS) as demo, sync_playwright() as playwright:
        _, room_id = open_rooms(demo)[0]
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        visitor = Visitor(browser, demo)
        speaker = Speaker(demo, room_id)
        _weigh(visitor, f"{demo.url}#/room/{room_id}")
        _wait_on_a_slow_network(visitor, f"{demo.url}#/room/{room_id}", speaker)
        _bear_a_burst(visitor, f"{demo.url}#/room/{room_id}", speaker)
        speaker.close()
        browser.close()


def _weigh(visitor: Visitor, url: str) -> None:
    with visitor.page() as page:
        sizes: list[tuple[int, int]] = []
        page.on("requestfinished", lambda request: sizes.append(_sizes(request)))
        page.goto(url)
        page.wait_for_selector(".composer textarea:enabled")
        page.wait_for_timeout(1000)
    plain, sent = (sum(each) / 1024 for each in zip(*sizes, strict=True))
    print(f"first load of a room: {len(sizes)} requests, {plain:.0f} KiB, {sent:.0f} KiB as it is sent")


def _sizes(request: object) -> tuple[int, int]:
    response = request.response()  # type: ignore[attr-defined]
    return len(response.body()), request.sizes()["responseBodySize"]  # type: ignore[attr-defined]


def _wait_on_a_slow_network(visitor: Visitor, url: str, speaker: Speaker) -> None:
    speaker.say("the first message")
    for is_slow in (False, True):
        taken = []
        for _ in range(ROUNDS):
            with visitor.page(is_slow=is_slow) as page:
                page.goto(url, wait_until="commit")
                page.wait_for_selector(".row .content:has-text('the first message')")
                taken.append(page.evaluate("() => performance.now()") / 1000)
        network = "400 kbit/s and 400 ms" if is_slow else "no limit"
        print(
            f"until the first message is there, {network}: {statistics.median(taken):.2f} s, at most {max(taken):.2f} s"
        )


def _bear_a_burst(visitor: Visitor, url: str, speaker: Speaker) -> None:
    for number in range(ROUNDS):
        with visitor.page() as page:
            page.goto(url)
            page.wait_for_selector(".composer textarea:enabled")
            page.wait_for_timeout(1000)
            page.evaluate(FRAMES)
            page.wait_for_timeout(200)
            last = f"burst {number}, message {MESSAGES - 1}"
            speaker.say(*(f"burst {number}, message {each}" for each in range(MESSAGES)))
            page.wait_for_selector(f".row .content:text-is('{last}')")
            frames = sorted(page.evaluate("() => window.frames_"))
        print(
            f"a burst of {MESSAGES}: {len(frames)} frames, median {statistics.median(frames):.1f} ms, 99 % below "
            f"{frames[int(0.99 * len(frames))]:.1f} ms, the longest {frames[-1]:.1f} ms"
        )


if __name__ == "__main__":
    main()
