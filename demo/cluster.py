"""`python -m demo.cluster`: Redis, two instances and an nginx in front of them, on this machine. Ctrl-C ends it all.

It needs a redis-server and a PostgreSQL that lets `postgres` in without a password, or --database. Where nginx is
installed, with its stream module, clients go round on the usual ports; else they take those of one instance or another.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from qiyu.storage.database import database_url

ROOT: Final = Path(__file__).parent.parent
PORTS: Final = {"tcp": 8085, "ws": 8086, "http": 8080}
MODULE: Final = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
POSTGRESQL: Final = "postgresql://postgres@127.0.0.1:5432/postgres"
START_SECONDS: Final = 60.0
REDIS_PORT: Final = 6390
LINK_PORT: Final = 8087


def ports_of(number: int) -> dict[str, int]:
    """Of an instance: those of the first are a hundred above the usual ones."""
    return {name: port + 100 * number for name, port in PORTS.items()}


@contextmanager
def running(words: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process, in a session of its own: Ctrl-C reaches it only through us, in order."""
    process = subprocess.Popen(words, start_new_session=True, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def database(server: str) -> Iterator[str]:
    """A database of its own on this server, which is gone afterwards."""
    engine = create_engine(database_url(server, Path()), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    name = f"qiyu_cluster_{uuid.uuid4().hex[:12]}"
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
    except DBAPIError as exc:
        sys.exit(
            f"no PostgreSQL at {make_url(server).render_as_string()}: {exc.orig}".strip() + "\nGive one: --database"
        )
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def nginx_config(folder: Path, instances: int) -> Path:
    """deploy/nginx-several.conf, with the ports of this machine's instances."""
    lines = []
    for line in (ROOT / "deploy" / "nginx-several.conf").read_text("utf-8").splitlines():
        match = re.fullmatch(r"( *)server 10\.0\.0\.(\d):(\d+) (.*)", line)
        if match is None:
            here = line.replace("listen ", "listen 127.0.0.1:").replace("/run/", f"{folder}/")
            few = here.replace("worker_connections 40000", "worker_connections 4000")
            lines.append(re.sub("^worker_rlimit_nofile.*", "", few))
        elif match[2] == "1":
            ports = [int(match[3]) + 100 * number for number in range(1, instances + 1)]
            lines += [f"{match[1]}server 127.0.0.1:{port} {match[4]}" for port in ports]
    path = folder / "nginx.conf"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def wait_for(ports: dict[str, int], process: subprocess.Popen[bytes]) -> None:
    """Until it is ready."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{ports['http']}/readyz", timeout=5).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                sys.exit("an instance did not start")
            time.sleep(0.1)
        else:
            return


def say(line: str) -> None:
    """At once, even into a pipe."""
    print(line, flush=True)


def main() -> None:
    """Run until somebody has seen enough."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(prog="python -m demo.cluster", description=__doc__)
    parser.add_argument("--instances", type=int, default=2, help="2 unless given")
    parser.add_argument("--database", default=POSTGRESQL, metavar="URL", help="of a PostgreSQL where one may be made")
    options = parser.parse_args()
    redis = shutil.which("redis-server") or shutil.which("valkey-server")
    if redis is None:
        sys.exit("no redis-server or valkey-server on PATH")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qiyu-cluster-")))
        url = stack.enter_context(database(options.database))
        quiet = {"stdout": subprocess.DEVNULL}
        words = [redis, "--port", str(REDIS_PORT), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        stack.enter_context(running(words, **quiet))
        shared = {
            "QIYU_DATABASE__URL": url,
            "QIYU_REDIS__URL": f"redis://127.0.0.1:{REDIS_PORT}/0",
            "QIYU_AUTH__SECRET": secrets.token_urlsafe(32),
            "QIYU_CLUSTER__SECRET": secrets.token_urlsafe(32),
            "QIYU_LOG__LEVEL": "warning",
            "QIYU_RTMP__PORT": "0",
        }
        for number in range(1, options.instances + 1):
            ports = ports_of(number)
            environ = {f"QIYU_{name.upper()}__PORT": str(port) for name, port in ports.items()}
            environ |= {
                "QIYU_CLUSTER__PORT": str(LINK_PORT + 100 * number),
                "QIYU_DATA__DIR": str(folder / str(number)),
            }
            command = [sys.executable, "-m", "qiyu", "serve"]
            process = stack.enter_context(running(command, env=os.environ | shared | environ, cwd=folder, **quiet))
            wait_for(ports, process)
            say(f"instance {number}: http://127.0.0.1:{ports['http']}/, WebSocket {ports['ws']}, TCP {ports['tcp']}")
        nginx = shutil.which("nginx")
        if nginx and MODULE.exists():
            config = nginx_config(folder, options.instances)
            stack.enter_context(running([nginx, "-c", str(config), "-g", "daemon off;"]))
            say(f"nginx:      http://127.0.0.1:{PORTS['http']}/, WebSocket {PORTS['ws']}, TCP {PORTS['tcp']}")
        if make_url(url).password is None:
            env = " ".join(f"{name}={shared[name]}" for name in ("QIYU_DATABASE__URL", "QIYU_REDIS__URL"))
            say(f"To see them: {env} qiyu instances")
        say("Ctrl-C ends it all.")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            say("")


if __name__ == "__main__":
    main()
