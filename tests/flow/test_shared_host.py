"""On a TLS host that is shared with other things, below paths of our own: nginx in front, as a user would have it."""

from __future__ import annotations

import ssl
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

from certificates import needs_openssl
from flow.test_video import ON_ONE_SOURCE
from nginx import needs_nginx, shared_host
from qiyu.client import ClientError, LoginRefused, Message, Options, connect
from servers import Start
from video import free_port

pytestmark = [ON_ONE_SOURCE, needs_openssl, needs_nginx]

HEADERS = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"


def nginx(folder: Path, port: int, ws: str) -> AbstractAsyncContextManager[ssl.SSLContext]:
    """A host that has us below two paths: the first is kept, and the second is taken away."""
    locations = f"location /apps/im {{ proxy_pass http://{ws}; }} location /taken/ {{ proxy_pass http://{ws}/; }}"
    return shared_host(folder, port, HEADERS, locations)


@pytest.mark.parametrize("path", ["/apps/im", "/taken"])
async def test_a_path_that_the_proxy_leaves_or_takes_away(start_server: Start, tmp_path: Path, path: str) -> None:
    port = free_port()
    url = f"wss://localhost:{port}{path}"
    settings = {"ws__path": path if path == "/apps/im" else "", "ws__public_url": url}
    async with start_server(**settings) as server, nginx(tmp_path, port, server.ws) as trust:
        options = Options(ssl_context=trust, retry_cap_seconds=0.1)
        async with (
            connect(url, user_id=10001, token=server.token(10001), room_id=7, options=options) as one,
            connect(f"{url}/", user_id=10002, token=server.token(10002), room_id=7, options=options) as two,
        ):
            await one.send_room("below a path")
            with trio.fail_after(20):
                async for item in two:
                    if isinstance(item, Message):
                        assert item.content == "below a path"
                        break
        log = (tmp_path / "access.log").read_text()
        assert server.token(10001)[:20] not in log


async def test_the_rest_of_the_host_is_not_ours(start_server: Start, tmp_path: Path) -> None:
    port = free_port()
    async with start_server(ws__path="/apps/im") as server:
        async with nginx(tmp_path, port, server.ws) as trust:
            options = Options(ssl_context=trust)
            for path, reason in (("/elsewhere", ""), ("/taken", "the path must begin with /apps/im/")):
                url = f"wss://localhost:{port}{path}"
                with pytest.raises(ClientError) as refused:
                    async with connect(url, user_id=10001, token=server.token(10001), options=options):
                        pass
                if reason:
                    assert isinstance(refused.value, LoginRefused)
                    assert reason in str(refused.value)
