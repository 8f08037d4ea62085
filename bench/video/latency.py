"""From glass to glass: when a frame was drawn, and when a browser on the same machine showed it."""

from __future__ import annotations

import http.server
import shutil
import statistics
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

HERE: Final = Path(__file__).parent
PLAYER: Final = HERE.parent.parent / "src/qiyu/web/pages/player.js"
PEERS: Final = HERE.parent / ".peers/hls"
HLS: Final = PEERS / "node_modules/hls.js/dist/hls.mjs"
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
FLAGS: Final = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SETTLE_MS: Final = 10_000  # until a player is as near to the live edge as it wants to be


@dataclass(frozen=True)
class Late:
    """How old frames were when they were shown, in milliseconds."""

    median: float
    p95: float
    frames_a_second: float
    unread: int


class _Files(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        name = path.partition("?")[0]
        return str({"/player.js": PLAYER, "/hls.mjs": HLS}.get(name, HERE / "page.html"))

    def guess_type(self, path: Any) -> str:
        return "text/html" if str(path).endswith(".html") else "text/javascript"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Not between the figures."""


def chromium() -> str | None:
    """Where it is."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def get_hls_js() -> bool:
    """Whether hls.js is there, by now."""
    npm = shutil.which("npm")
    if not HLS.exists() and npm is not None:
        PEERS.mkdir(parents=True, exist_ok=True)
        (PEERS / ".gitignore").write_text("*\n")
        command = [npm, "install", "--prefix", str(PEERS), "--no-audit", "--no-fund", "--silent", "hls.js@1.6"]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    return HLS.exists()


def measure(url: str, seconds: float, **player: str) -> Late:
    """Play `url` in a browser, and read what it shows for so long."""
    with _files() as at, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page()
        page.goto(f"{at}?{urlencode({'url': url, **player})}")
        page.wait_for_function("() => window.late.length > 0", timeout=60_000)
        page.wait_for_timeout(SETTLE_MS)
        page.evaluate("() => { window.late = []; window.unread = 0; }")
        page.wait_for_timeout(1000 * seconds)
        late, unread = page.evaluate("() => [window.late, window.unread]")
        browser.close()
    if len(late) < 2:
        raise SystemExit(f"the browser showed {len(late)} frames in {seconds:g} s, and {unread} that were not read")
    return Late(statistics.median(late), statistics.quantiles(late, n=20)[-1], len(late) / seconds, unread)


@contextmanager
def _files() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()
