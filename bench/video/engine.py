"""nginx with its rtmp module, as deploy/nginx-rtmp.conf has it, but for what it asks qiyu, its ports and its folder."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CONFIG: Final = Path(__file__).parent.parent.parent / "deploy/nginx-rtmp.conf"
MODULE: Final = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")
NGINX: Final = shutil.which("nginx")
START_SECONDS: Final = 30


def is_there() -> bool:
    """Whether it is installed."""
    return NGINX is not None and MODULE.exists()


@contextmanager
def nginx(rtmp_port: int, http_port: int) -> Iterator[str]:
    """Run it while inside; what is said is where the pictures of the stream `room` are."""
    with tempfile.TemporaryDirectory(prefix="qiyu-hls-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        pictures = folder / "hls"
        pictures.mkdir()
        pictures.chmod(0o777)  # its worker is somebody else
        text = re.sub(r"^\s*(on_|notify_).*$", "", CONFIG.read_text("utf-8"), flags=re.MULTILINE)
        for old, new in {
            "listen 1935": f"listen 127.0.0.1:{rtmp_port}",
            "listen 8088": f"listen 127.0.0.1:{http_port}",
            "/run/nginx-rtmp.pid": str(folder / "nginx.pid"),
            "/tmp/nginx-rtmp-hls": str(pictures),  # noqa: S108
        }.items():
            text = text.replace(old, new)
        config = folder / "nginx.conf"
        config.write_text(text, "utf-8")
        process = subprocess.Popen([NGINX or "nginx", "-c", str(config), "-g", "daemon off;"])
        try:
            _wait_for(rtmp_port)
            yield f"http://127.0.0.1:{http_port}/hls/room.m3u8"
        finally:
            process.terminate()
            process.wait(10)


def wait_for_playlist(url: str) -> str:
    """The playlist, once it names two pieces."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
                text: str = answer.read().decode()
        except OSError:
            text = ""
        if text.count(".ts") > 1:
            return text
        time.sleep(0.2)
    raise SystemExit(f"{url}: no pictures within {START_SECONDS} s")


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("nginx did not start: what it says is above")
