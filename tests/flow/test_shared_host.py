"""On a TLS host that is shared with other things, below paths of our own: nginx in front, as a user would have it."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from string import Template

import pytest
import trio

from certificates import make_certificate, needs_openssl, trusting
from flow.test_video import ON_ONE_SOURCE
from qiyu.client import ClientError, LoginRefused, Message, Options, connect
from servers import Start
from video import free_port

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")

pytestmark = [
    ON_ONE_SOURCE,
    needs_openssl,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]

CONFIG = Template("""
daemon off; master_process off; worker_processes 1;
pid $folder/nginx.pid; error_log $folder/error.log;
events {}
http {
  access_log $folder/access.log;
  client_body_temp_path $folder/body; proxy_temp_path $folder/proxy; fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi; scgi_temp_path $folder/scgi;
  ssl_certificate $folder/server.pem; ssl_certificate_key $folder/server.key;
  proxy_http_version 1.1;
  proxy_set_header Host $$http_host;
  proxy_set_header Upgrade $$http_upgrade;
  proxy_set_header Connection upgrade;
  server {
    listen 127.0.0.1:$port ssl;
    location / { return 200 "something else"; }
    location /apps/im { proxy_pass http://$kept; }
    location /taken/ { proxy_pass http://$taken/; }
  }
}
""")


@asynccontextmanager
async def nginx(folder: Path, port: int, **upstream: str) -> AsyncIterator[ssl.SSLContext]:
    """nginx with TLS on `port`; yields what a client needs to believe it."""
    certificate, _ = make_certificate(folder)
    config = folder / "nginx.conf"
    config.write_text(CONFIG.substitute(folder=folder, port=port, **upstream))
    process = subprocess.Popen([str(NGINX), "-c", config, "-p", folder, "-e", folder / "error.log"])  # noqa: ASYNC220  # it goes on
    try:
        with trio.fail_after(20):
            while True:
                try:
                    await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                    break
                except OSError:
                    assert process.poll() is None, (folder / "error.log").read_text()
                    await trio.sleep(0.05)
        yield trusting(certificate)
    finally:
        process.terminate()
        await trio.to_thread.run_sync(process.wait)


@pytest.mark.parametrize("path", ["/apps/im", "/taken"])
async def test_a_path_that_the_proxy_leaves_or_takes_away(start_server: Start, tmp_path: Path, path: str) -> None:
    port = free_port()
    url = f"wss://localhost:{port}{path}"
    settings = {"ws__path": path if path == "/apps/im" else "", "ws__public_url": url}
    async with start_server(**settings) as server, nginx(tmp_path, port, kept=server.ws, taken=server.ws) as trust:
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
        async with nginx(tmp_path, port, kept=server.ws, taken=server.ws) as trust:
            options = Options(ssl_context=trust)
            for path, reason in (("/elsewhere", ""), ("/taken", "the path must begin with /apps/im/")):
                url = f"wss://localhost:{port}{path}"
                with pytest.raises(ClientError) as refused:
                    async with connect(url, user_id=10001, token=server.token(10001), options=options):
                        pass
                if reason:
                    assert isinstance(refused.value, LoginRefused)
                    assert reason in str(refused.value)
