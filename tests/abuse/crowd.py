"""Honest people in one room, who talk, acknowledge and write down what they see, while somebody attacks."""

from __future__ import annotations

import itertools
import json
import selectors
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from abuse.quiet import attacking, percentile, say
from crash.server import ServerProcess
from history.judge import judge
from history.record import History, Room
from raw_clients import ACK, BIZ, ERROR, HEADER, HEARTBEAT, LOGIN, ROOM_CHAT, body_of, frame

ROOM = 77
FIRST_USER = 20_000
MESSAGES_PER_SECOND = 20
DRAIN_SECONDS = 10.0
DELIVERY_MS, LOGIN_MS, HTTP_MS = 50.0, 250.0, 500.0


class Person:
    """One of them."""

    def __init__(self, user: int, server: ServerProcess, history: History) -> None:
        self.user = user
        self.history = history
        host, port = server.tcp.rsplit(":", 1)
        self.sock = socket.create_connection((host, int(port)), timeout=60)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        history.connected(time.monotonic(), connection=user, user=user)
        data = {"roomId": ROOM}
        self.sock.sendall(frame(LOGIN, body_of(appId=10001, userId=user, token=server.token(user), data=data)))
        self.sock.sendall(frame(HEARTBEAT, b"{}"))  # its answer says that the room was entered
        while HEARTBEAT not in [code for code, _ in self._packets()]:
            pass
        history.entered(time.monotonic(), connection=user, user=user, room=ROOM)

    def say(self, number: int) -> None:
        """Send one message."""
        key = f"{self.user}-{number}"
        self.history.sent(
            time.monotonic(),
            connection=self.user,
            sender=self.user,
            key=key,
            content=key,
            target=Room(ROOM),
            client_msg_id=key,
        )
        data = {"roomId": ROOM, "type": 1, "content": key}
        self.sock.sendall(frame(BIZ, body_of(bizCode=ROOM_CHAT, clientMsgId=key, data=data)))

    def read(self) -> list[str]:
        """Take what has come, and acknowledge it; returns the contents of what honest people said."""
        found = []
        acks = b""
        now = time.monotonic()
        for code, body in self._packets():
            fields = json.loads(body)
            if code == ACK:
                key = fields["clientMsgId"]
                self.history.receipted(
                    now, connection=self.user, sender=self.user, client_msg_id=key, msg_id=fields["msgId"]
                )
            elif code == ERROR:
                self._error(now, fields)
            elif code == BIZ and fields.get("msgId"):
                data = json.loads(fields["data"])
                acks += frame(ACK, b'{"msgId":"%b"}' % fields["msgId"].encode())
                if not data["content"].startswith("flood"):
                    found.append(data["content"])
                    self._received(now, fields["msgId"], data)
        if acks:
            self.sock.sendall(acks)
        return found

    def _received(self, now: float, msg_id: str, data: dict[str, str]) -> None:
        self.history.received(
            now,
            connection=self.user,
            user=self.user,
            msg_id=msg_id,
            sender=int(data["userId"]),
            target=Room(ROOM),
            content=data["content"],
        )
        self.history.acknowledged(now, connection=self.user, user=self.user, msg_id=msg_id)

    def _error(self, now: float, fields: dict[str, str]) -> None:
        error = json.loads(fields["data"])
        if error["code"] == 206:
            self.history.dropped(now, connection=self.user)
        else:
            key = fields.get("clientMsgId", "")
            self.history.refused(
                now, connection=self.user, sender=self.user, code=error["code"], client_msg_id=key, key=key
            )

    def _packets(self) -> list[tuple[int, bytes]]:
        data = self._unread + self.sock.recv(256 * 1024)
        packets = []
        start = 0
        while len(data) - start >= HEADER.size:
            _, code, length = HEADER.unpack_from(data, start)
            end = start + HEADER.size + length
            if end > len(data):
                break
            packets.append((code, data[start + HEADER.size : end]))
            start = end
        self._unread = data[start:]
        return packets


class Probes:
    """Logs in and calls over HTTP now and then, and notes how long that took, in milliseconds."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._stopped = threading.Event()
        self.logins: list[float] = []
        self.calls: list[float] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """While inside."""
        threads = [threading.Thread(target=self._repeat, args=each) for each in ((self._log_in,), (self._call,))]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    def _repeat(self, act: object) -> None:
        while not self._stopped.wait(0.2):
            act()  # type: ignore[operator]

    def _log_in(self) -> None:
        host, port = self._server.tcp.rsplit(":", 1)
        user = FIRST_USER + 5000
        begun = time.perf_counter()
        with socket.create_connection((host, int(port)), timeout=60) as sock:
            sock.sendall(frame(LOGIN, body_of(appId=10001, userId=user, token=self._server.token(user))))
            sock.recv(4096)
        self.logins.append(1000 * (time.perf_counter() - begun))

    def _call(self) -> None:
        begun = time.perf_counter()
        with urllib.request.urlopen(f"http://{self._server.http}/healthz", timeout=60) as answer:
            answer.read()
        self.calls.append(1000 * (time.perf_counter() - begun))


class Crowd:
    """All of them, driven by one thread."""

    _numbers = itertools.count()  # a clientMsgId is known again for hours: no two crowds use the same

    def __init__(self, server: ServerProcess, people: int) -> None:
        self.history = History()
        self._selector = selectors.DefaultSelector()
        self._people = [Person(FIRST_USER + n, server, self.history) for n in range(people)]
        for person in self._people:
            self._selector.register(person.sock, selectors.EVENT_READ, person)
        self._sent_at: dict[str, float] = {}

    def talk(self, seconds: float) -> list[float]:
        """For so long; returns how long each delivery took, in milliseconds, sorted."""
        took: list[float] = []
        begun = time.monotonic()
        until = begun + seconds
        wanted = 0
        sent = 0
        while (now := time.monotonic()) < until or wanted > len(took):
            if now > until + DRAIN_SECONDS:
                break
            if now < until and sent < (now - begun) * MESSAGES_PER_SECOND:
                number = next(self._numbers)
                person = self._people[number % len(self._people)]
                person.say(number)
                self._sent_at[f"{person.user}-{number}"] = now
                sent += 1
                wanted += len(self._people) - 1
            for key, _ in self._selector.select(0.01):
                contents = key.data.read()
                now = time.monotonic()
                took += [1000 * (now - self._sent_at.get(content, now)) for content in contents]
        took += [float("inf")] * (wanted - len(took))
        return sorted(took)

    def close(self) -> None:
        """Leave."""
        for person in self._people:
            person.sock.close()


def endure(server: ServerProcess, names: list[str], people: int, seconds: float, connections: int) -> tuple[bool, bool]:
    """Attack by each of these, and print what was noticed: whether all was delivered, and in time."""
    is_whole = is_quick = True
    for name in ["", *names]:
        crowd = Crowd(server, people)
        crowd.talk(0.5)
        probes = Probes(server)
        if name:
            with attacking(server, name, connections, ROOM, 10 * seconds + 30), probes.running():
                took = crowd.talk(seconds)
        else:
            with probes.running():
                took = crowd.talk(seconds)
        crowd.talk(0.2)
        faults = judge(crowd.history)
        crowd.close()
        late = [percentile(sorted(each) or [0.0], 99) for each in (took, probes.logins, probes.calls)]
        good = all(value <= bound for value, bound in zip(late, (DELIVERY_MS, LOGIN_MS, HTTP_MS), strict=True))
        is_quick = is_quick and good
        is_whole = is_whole and not faults and float("inf") not in took
        figures = "  ".join(
            f"{what} {value:8.1f}" for what, value in zip(("delivery", "login", "HTTP"), late, strict=True)
        )
        say(f"{name or 'undisturbed':30} p99 in ms: {figures}{'' if good else '  LATE'}  {len(took)} deliveries")
        for fault in faults[:5]:
            say(f"  {fault.kind.name}: {fault.text}")
    return is_whole, is_quick
