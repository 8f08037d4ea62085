"""A real browser with one page, in a process of its own: what drives it has an event loop that trio would not share.

As a program, it opens the page it is given, then answers lines of JSON: `{"evaluate": "…"}` with the value of that
function in the page, `{"wait": "…"}` once that function gives true.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

CHROMIUM = shutil.which("chromium") or ""
PATIENCE_SECONDS = 60

needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")


class Browser:
    """A page that is open."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._rest = b""

    async def evaluate(self, function: str) -> Any:
        """The value of a JavaScript function in the page."""
        return await self._ask(evaluate=function)

    async def wait(self, function: str) -> None:
        """Return once the function gives true."""
        assert await self._ask(wait=function) is True

    async def _ask(self, **what: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with trio.fail_after(PATIENCE_SECONDS + 10):
            await self._process.stdin.send_all(json.dumps(what).encode() + b"\n")
            while b"\n" not in self._rest:
                data = await self._process.stdout.receive_some()
                assert data, "the browser has ended"
                self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]


@asynccontextmanager
async def open_page(url: str) -> AsyncIterator[Browser]:
    """A browser that shows `url`."""
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, __file__, url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                check=False,
            )
        )
        try:
            yield Browser(process)
        finally:
            with trio.move_on_after(10, shield=True):
                await process.stdin.aclose()
                await process.wait()
            process.kill()


def main(url: str) -> None:
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(url)
        for line in sys.stdin:
            asked = json.loads(line)
            answer: dict[str, Any]
            try:
                if "wait" in asked:
                    page.wait_for_function(asked["wait"], timeout=PATIENCE_SECONDS * 1000)
                    answer = {"value": True}
                else:
                    answer = {"value": page.evaluate(asked["evaluate"])}
            except Error as exc:
                answer = {"error": str(exc)}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
