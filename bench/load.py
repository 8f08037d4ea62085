"""A load generator: drives a server over real TCP sockets from a process of its own, and reads what the server used.

    python bench/load.py heartbeat --connections 500 --seconds 5
    python bench/load.py room --connections 500 --senders 4 --in-flight 4 --seconds 5
    python bench/load.py idle --connections 5000

Without `--port` it starts `qiyu serve` itself, on free ports, pinned to another core where there are two. Every
delivery is counted where it arrives, and acknowledged; a message is done when every other member has it. The figure
that survives a noisy machine is the server's CPU time per 100,000 of what it did; a generator that used its whole core
says so.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HEADER = struct.Struct(">hii")
MAGIC = 18673
LOGIN, BIZ, HEARTBEAT, ACK = 1001, 1003, 1004, 1005
FIRST_USER = 10_000
ROOM = 1
CONTENT = "x" * 40
LOGIN_TIMEOUT_SECONDS = 30
TICKS = os.sysconf("SC_CLK_TCK")


def frame(code: int, body: bytes) -> bytes:
    """One packet."""
    return HEADER.pack(MAGIC, code, len(body)) + body


@dataclass
class Server:
    """The process under load: its TCP port and its process id."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time it has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident_bytes(self) -> int:
        """Memory it holds."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@contextlib.contextmanager
def started_server() -> Iterator[tuple[Server, dict[int, str]]]:
    """`qiyu serve` with no limits, and a token for each of 10,000 users."""
    with tempfile.TemporaryDirectory() as folder:
        unlimited = {f"QIYU_LIMITS__{name}": "0" for name in ("MESSAGES_PER_SECOND", "CONNECTIONS_PER_ADDRESS")}
        unlimited["QIYU_LIVING__REQUIRE_OPEN_ROOM"] = "false"
        ports = {f"QIYU_{name}__PORT": "0" for name in ("TCP", "WS", "HTTP")}
        environment = os.environ | unlimited | ports | {"QIYU_DATA__DIR": folder}
        process = subprocess.Popen(
            [*pinned(0), sys.executable, "-m", "qiyu", "serve"], env=environment, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.search(r":(\d+)", line)
            if match is None:
                raise SystemExit("the server did not start")
            tokens = subprocess.run(
                [sys.executable, "-m", "qiyu", "token", f"{FIRST_USER}-{FIRST_USER + 9_999}"],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            yield Server(int(match[1]), process.pid), {int(u): t for u, t in map(str.split, tokens.splitlines())}
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def pinned(core: int) -> list[str]:
    """The command that pins what follows to a core, where there are two."""
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 and sys.platform == "linux" else []


@dataclass
class Peer:
    """One client connection."""

    sock: socket.socket
    user: int
    unfinished: bytes = b""

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Read once; code and body of each packet that is complete."""
        data = self.sock.recv(1 << 20)
        if not data:
            raise SystemExit(f"the server closed the connection of user {self.user}")
        data = self.unfinished + data
        start, size = 0, len(data)
        while size - start >= HEADER.size:
            _, code, length = HEADER.unpack_from(data, start)
            end = start + HEADER.size + length
            if end > size:
                break
            yield code, data[start + HEADER.size : end]
            start = end
        self.unfinished = data[start:]

    def messages(self) -> Iterator[bytes]:
        """Read once; the msgId of each message, which both servers write last. Room events have none."""
        for code, body in self.frames():
            if code != BIZ:
                raise SystemExit(f"user {self.user} got a packet {code}: {body!r}")
            _, found, rest = body.rpartition(b'"msgId":"')
            if found:
                yield rest[: rest.index(b'"')]


def log_in(port: int, users: range, tokens: dict[int, str]) -> list[Peer]:
    """Connections that have their LOGIN answer, all in one room."""
    peers = []
    for user in users:
        sock = socket.create_connection(("127.0.0.1", port), timeout=LOGIN_TIMEOUT_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        token = tokens.get(user, "")
        data = f'{{\\"roomId\\":{ROOM}}}'
        sock.sendall(frame(LOGIN, f'{{"appId":10001,"userId":{user},"token":"{token}","data":"{data}"}}'.encode()))
        peer = Peer(sock, user)
        peers.append(peer)
        if list(peer.frames())[0][0] != LOGIN:  # noqa: RUF015
            raise SystemExit(f"user {user} could not log in")
        sock.setblocking(False)
    return peers


@dataclass
class Figures:
    """What one run did, and what it cost."""

    what: str
    done: int
    seconds: float
    server_cpu: float
    own_cpu: float
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        per = 100_000 * self.server_cpu / max(self.done, 1)
        busy = self.own_cpu / self.seconds
        line = f"{self.what}: {self.done / self.seconds:,.0f}/s, {per:.3f} server CPU s per 100,000"
        line += f" (server {self.server_cpu / self.seconds:.0%}, generator {busy:.0%} of a core)"
        if busy > 0.9:
            self.notes.append("the generator was saturated")
        return "; ".join([line, *self.notes])


def run_heartbeats(server: Server, peers: list[Peer], seconds: float) -> Figures:
    """Each connection sends its next heartbeat when the last one is answered."""
    beat = frame(HEARTBEAT, b"{}")
    epoll, by_fd = watch(peers)
    for peer in peers:
        peer.sock.send(beat)
    done = 0
    start, cpu, own = time.perf_counter(), server.cpu_seconds(), time.process_time()
    while time.perf_counter() - start < seconds:
        for fd, _ in epoll.poll(1):
            peer = by_fd[fd]
            answers = sum(code == HEARTBEAT for code, _ in peer.frames())
            done += answers
            peer.sock.send(beat * answers)
    return Figures(
        f"heartbeat × {len(peers)}",
        done,
        time.perf_counter() - start,
        server.cpu_seconds() - cpu,
        time.process_time() - own,
    )


def run_room(server: Server, peers: list[Peer], senders: int, in_flight: int, seconds: float) -> Figures:
    """Each sender keeps so many messages in flight; a message is done when all others have it."""
    data = f'{{\\"roomId\\":{ROOM},\\"content\\":\\"{CONTENT}\\"}}'
    message = frame(BIZ, f'{{"appId":10001,"bizCode":5555,"data":"{data}"}}'.encode())
    epoll, by_fd = watch(peers)
    missing: dict[bytes, int] = {}
    others = len(peers) - 1
    sent = 0
    for peer in peers[:senders]:
        peer.sock.send(message * in_flight)
        sent += in_flight
    done = completed = 0
    start, cpu, own = time.perf_counter(), server.cpu_seconds(), time.process_time()
    stop = start + seconds
    while completed < sent:
        sending = time.perf_counter() < stop
        if time.perf_counter() > stop + LOGIN_TIMEOUT_SECONDS:
            raise SystemExit(f"{sent - completed} messages did not reach everybody")
        for fd, _ in epoll.poll(1):
            peer = by_fd[fd]
            acks = []
            for msg_id in peer.messages():
                acks.append(frame(ACK, b'{"msgId":"%b"}' % msg_id))
                left = missing.pop(msg_id, others) - 1
                if left:
                    missing[msg_id] = left
                    continue
                completed += 1
                if sending:  # whoever had a message done sends another; which of the senders makes no difference
                    peers[completed % senders].sock.send(message)
                    sent += 1
            done += len(acks)
            peer.sock.send(b"".join(acks))
    figures = Figures(
        f"room 1 × {len(peers)}, {senders} senders × {in_flight}",
        done,
        time.perf_counter() - start,
        server.cpu_seconds() - cpu,
        time.process_time() - own,
    )
    if done != sent * others:
        figures.notes.append(f"LOST OR DOUBLED: {done} deliveries of {sent * others}")
    return figures


def run_idle(server: Server, users: range, tokens: dict[int, str]) -> list[Peer]:
    """Log in, and weigh all but the first tenth: that one fills what the process keeps for itself."""
    first = len(users) // 10
    peers = log_in(server.port, users[:first], tokens)
    before = server.resident_bytes()
    peers += log_in(server.port, users[first:], tokens)
    weight = (server.resident_bytes() - before) / (len(users) - first)
    print(f"idle × {len(users)}: {weight:,.0f} bytes of resident memory for each connection, logged in and in a room")
    return peers


def watch(peers: list[Peer]) -> tuple[select.epoll, dict[int, Peer]]:
    """An epoll object over all of them."""
    epoll = select.epoll()
    for peer in peers:
        epoll.register(peer.sock.fileno(), select.EPOLLIN)
    return epoll, {peer.sock.fileno(): peer for peer in peers}


def raise_file_limit() -> None:
    """As many sockets as there may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Run one workload and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=["heartbeat", "room", "idle"])
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--in-flight", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--port", type=int, help="a server that runs already, and takes any token; needs --pid")
    parser.add_argument("--pid", type=int)
    args = parser.parse_args()
    raise_file_limit()
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {1})
    with contextlib.ExitStack() as stack:
        tokens: dict[int, str] = {}
        if args.port:
            server = Server(args.port, args.pid)
        else:
            server, tokens = stack.enter_context(started_server())
        users = range(FIRST_USER, FIRST_USER + args.connections)
        if args.workload == "idle":
            peers = run_idle(server, users, tokens)
        else:
            peers = log_in(server.port, users, tokens)
            if args.workload == "heartbeat":
                print(run_heartbeats(server, peers, args.seconds))
            else:
                print(run_room(server, peers, args.senders, args.in_flight, args.seconds))
        for peer in peers:
            peer.sock.close()


if __name__ == "__main__":
    main()
