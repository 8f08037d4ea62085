"""HTTP below a path of a TLS host that others share: nginx in front, which leaves the path or takes it away."""

from __future__ import annotations

import json
import re
import ssl
import urllib.request
from contextlib import AbstractAsyncContextManager
from functools import partial
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

import pytest
import trio

from certificates import needs_openssl
from flow.test_video import ON_ONE_SOURCE
from nginx import needs_nginx, shared_host
from servers import Start
from video import free_port

pytestmark = [ON_ONE_SOURCE, needs_openssl, needs_nginx]

HEADERS = "proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;"


def nginx(folder: Path, port: int, http: str, uri: str) -> AbstractAsyncContextManager[ssl.SSLContext]:
    """A host that has us below /apps/live; with the `uri` of a slash, the path is taken away."""
    return shared_host(folder, port, HEADERS, f"location /apps/live{uri} {{ proxy_pass http://{http}{uri}; }}")


class Browser:
    """What follows redirects and keeps cookies."""

    def __init__(self, trust: ssl.SSLContext) -> None:
        self.cookies = CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=trust), urllib.request.HTTPCookieProcessor(self.cookies)
        )

    async def open(self, url: str, **form: str) -> tuple[str, str]:
        """Where it ended, and what was there."""
        data = urlencode(form).encode() if form else None
        return await trio.to_thread.run_sync(partial(self._open, url, data))

    def _open(self, url: str, data: bytes | None) -> tuple[str, str]:
        with self._opener.open(url, data, timeout=10) as answer:
            return answer.url, answer.read().decode()

    async def post(self, url: str, **form: str) -> Any:
        """The data of a call."""
        return json.loads((await self.open(url, **form or {"nothing": ""}))[1])["data"]


@pytest.mark.parametrize("uri", ["", "/"], ids=["left", "taken away"])
async def test_everything_is_found_below_the_path(start_server: Start, tmp_path: Path, uri: str) -> None:
    port = free_port()
    site = f"https://localhost:{port}/apps/live"
    async with start_server(http__path="/apps/live", http__trusted_proxies='["127.0.0.1"]') as server:
        async with nginx(tmp_path, port, http=server.http, uri=uri) as trust:
            browser = Browser(trust)
            at, page = await browser.open(site if not uri else f"{site}/")
            assert at == f"{site}/"
            for link in re.findall(r'(?:href|src)="([^"]+)"', page):
                assert (await browser.open(urljoin(at, link)))[1]
            at, page = await browser.open(f"{site}/docs")
            [link] = re.findall(r'href="([^"]+)"', page)
            description = json.loads((await browser.open(urljoin(at, link)))[1])
            assert description["servers"] == [{"url": "/apps/live"}]
            made = await browser.post(f"{site}/user/register", name="ann", password="correct horse")
            [cookie] = browser.cookies
            assert (cookie.path, cookie.secure) == ("/apps/live", True)
            assert (await browser.post(f"{site}/home/initPage"))["userId"] == made["userId"]
            assert (await browser.open(f"https://localhost:{port}/"))[1] == "something else"
