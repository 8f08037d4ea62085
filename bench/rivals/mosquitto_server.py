"""mosquitto, the MQTT broker: in memory, without bounds on what it keeps for a client."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path

from bench.rivals.house import listening

SETTINGS = """
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
log_type error
"""
PATIENCE_SECONDS = 10


def main() -> None:
    """Become mosquitto, so that this process is what is measured; a child says when it listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    file = Path(tempfile.mkdtemp(prefix="qiyu-bench-")) / "mosquitto.conf"
    file.write_text(SETTINGS.format(port=port))
    file.parent.chmod(0o755)  # started by root, it becomes another user
    if os.fork() == 0:
        _tell(port)
        os._exit(0)
    os.execvp("mosquitto", ["mosquitto", "-c", str(file)])  # noqa: S606, S607


def _tell(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            listening("tcp", port)
            return


main()
