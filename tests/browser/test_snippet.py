"""The README's program for browsers goes on after its token has expired and its server was away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from browser.conftest import PATIENCE_MS
from browser.house import SECRET, House
from documents import blocks
from qiyu.services.tokens import Tokens

TOKEN_SECONDS = 1
USER = 10001


@pytest.fixture
def house(tmp_path: Path, browser: Browser) -> Iterator[House]:
    house = House(tmp_path, living__require_open_room="false")
    house.start()
    yield house
    house.stop()


class Backend(ThreadingHTTPServer):
    """A page with the program, and the tokens that it asks for."""

    def __init__(self, code: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.page = f"<!doctype html><link rel=icon href=data:,><script type=module>{code}</script>"
        self.made: list[str] = []

    def token(self) -> str:
        self.made.append(Tokens(SECRET, TOKEN_SECONDS).issue(USER, now_ms=time.time_ns() // 1_000_000))
        return self.made[-1]


class _Handler(BaseHTTPRequestHandler):
    server: Backend

    def do_GET(self) -> None:  # http.server calls it so
        text = self.server.token() if self.path == "/token" else self.server.page
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def backend(house: House) -> Iterator[Backend]:
    (code,) = blocks("README.md", "js")
    backend = Backend(code.replace("127.0.0.1:8086", f"127.0.0.1:{house.ports['ws']}"))
    thread = threading.Thread(target=backend.serve_forever)
    thread.start()
    yield backend
    backend.shutdown()
    thread.join()
    backend.server_close()


def test_the_javascript_of_the_readme(house: House, backend: Backend, browser: Browser) -> None:
    person = house.person()
    assert person.user_id != USER
    context = browser.new_context()
    page = context.new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.goto(f"http://127.0.0.1:{backend.server_port}/")

    def until_it_hears(content: str) -> None:
        until = time.monotonic() + PATIENCE_MS / 1000
        with house.tcp(person, 1) as other:
            while not any(f"content: {content}," in text for text in heard):
                assert time.monotonic() < until, heard
                other.say(1, content)
                page.wait_for_timeout(200)

    until_it_hears("now")
    house.stop()
    time.sleep(TOKEN_SECONDS)
    page.wait_for_timeout(5_000)  # it tries in vain
    house.start()
    until_it_hears("later")
    assert len(set(backend.made)) > 2
    context.close()
