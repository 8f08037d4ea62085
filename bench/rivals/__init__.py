"""Other servers on the same room work, each a short script here, and the environment they are installed into.

A peer lets members into rooms, passes each message on to all other members with the receiver's own userId spliced in,
notes for each receiver what it owes an ACK for, and strikes that off when it comes. Where it can, it speaks qiyu's own
packets, so that the same generator drives it. What it lacks beside qiyu: tokens, checks, limits, a bound on any queue.
mosquitto speaks MQTT 5 with quality of service 1, and sends all members the same bytes: it knows no userId.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.wires import Wire
from bench.wires.mqtt import Mqtt
from bench.wires.socketio import SocketIo
from bench.wires.tcp import Tcp
from bench.wires.websocket import WebSocket

HOME: Final = Path(__file__).parents[1] / ".peers"


@dataclass(frozen=True)
class Rival:
    """What it is made of, and the module here (or the script for Node) that runs it."""

    requirements: tuple[str, ...]
    script: str
    speaks: Wire = field(default_factory=WebSocket)
    program: str = ""
    """What it starts, where that does not come from a package of Python's or Node's."""

    def missing(self) -> str:
        """What this machine has not got for it; empty if nothing."""
        needed = "npm" if self.script.endswith(".js") else self.program
        return needed if needed and shutil.which(needed) is None else ""

    def command(self) -> list[str]:
        """Install what it needs, and return what starts it."""
        HOME.mkdir(exist_ok=True)
        (HOME / ".gitignore").write_text("*\n")
        if self.script.endswith(".js"):
            run = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(HOME), *self.requirements]
            subprocess.run(run, check=True, stdout=sys.stderr)
            return ["env", f"NODE_PATH={HOME / 'node_modules'}", "node", str(Path(__file__).parent / self.script)]
        if self.program:
            return [sys.executable, "-m", f"bench.rivals.{self.script}"]
        python = HOME / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "msgspec", *self.requirements], check=True, stdout=sys.stderr)
        return [str(python), "-m", f"bench.rivals.{self.script}"]


PEERS: Final = {
    "uvloop TCP": Rival(("uvloop",), "uvloop_tcp", Tcp()),
    "picows": Rival(("picows", "uvloop"), "picows_server"),
    "ws (Node)": Rival(("ws",), "ws_server.js"),
    "websockets": Rival(("websockets",), "websockets_server"),
    "trio-websocket": Rival(("trio", "trio-websocket"), "trio_websocket_server"),
    "python-socketio": Rival(("python-socketio", "uvicorn", "uvloop", "websockets"), "socketio_server", SocketIo()),
    "mosquitto": Rival((), "mosquitto_server", Mqtt(), program="mosquitto"),
}
