"""A real nginx in front of a server, as a user would have it."""

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

from certificates import make_certificate, trusting

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

_FRAME = Template("""
daemon off; master_process off; worker_processes 1;
pid $folder/nginx.pid; error_log $folder/error.log;
events {}
http {
  access_log $folder/access.log;
  client_body_temp_path $folder/body; proxy_temp_path $folder/proxy; fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi; scgi_temp_path $folder/scgi;
  $http
}
""")
_SHARED_HOST = Template("""
  ssl_certificate $folder/server.pem; ssl_certificate_key $folder/server.key;
  proxy_set_header Host $$http_host;
  $headers
  server {
    listen 127.0.0.1:$port ssl;
    location / { return 200 "something else"; }
    $locations
  }
""")


def framed(folder: Path, http: str) -> str:
    """A configuration that keeps all that it writes in a folder; `http` is what stands in its http block."""
    return _FRAME.substitute(folder=folder, http=http)


@asynccontextmanager
async def running(folder: Path, config: str, port: int) -> AsyncIterator[None]:
    """nginx with this configuration, once it listens on `port` of this machine."""
    file = folder / "nginx.conf"
    file.write_text(config, "utf-8")
    process = subprocess.Popen([str(NGINX), "-c", file, "-p", folder, "-e", folder / "error.log"])  # noqa: ASYNC220  # it goes on
    try:
        with trio.fail_after(20):
            while True:
                try:
                    await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                    break
                except OSError:
                    assert process.poll() is None, (folder / "error.log").read_text()
                    await trio.sleep(0.05)
        yield
    finally:
        process.terminate()
        await trio.to_thread.run_sync(process.wait)


@asynccontextmanager
async def shared_host(folder: Path, port: int, headers: str, locations: str) -> AsyncIterator[ssl.SSLContext]:
    """A host with TLS and other things than us on `port`; yields what a client needs to believe it."""
    certificate, _ = make_certificate(folder)
    http = _SHARED_HOST.substitute(folder=folder, port=port, headers=headers, locations=locations)
    async with running(folder, framed(folder, http), port):
        yield trusting(certificate)
