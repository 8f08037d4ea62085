"""One run: crowds come and go, are killed, and come back in storms, while the server is watched."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from crash.server import SECRET, ServerProcess
from soak.watch import GAUGES, SPARE_FILES, Record, Sample, judge, look

FIRST_USER: Final = 20_001
GONE_SECONDS: Final = 30.0
"""For the server to notice that everybody has gone."""
HEARTBEAT_SECONDS: Final = 5.0

SETTINGS: Final[Mapping[str, str]] = types.MappingProxyType(
    {
        # Everybody comes from one address here, and in storms.
        "LIMITS__CONNECTIONS_PER_ADDRESS": "0",
        "LIMITS__LOGINS_PER_SECOND": "0",
        # So that sleepers and slow readers come to their ends within the run.
        "SESSION__HEARTBEAT_SECONDS": f"{HEARTBEAT_SECONDS:g}",
        "LIMITS__OUTBOX_SOFT_BYTES": "65536",
        "LIMITS__OUTBOX_HARD_BYTES": "262144",
    }
)


@dataclass(frozen=True)
class Options:
    """What to do."""

    seconds: float = 600.0
    crowds: int = 3
    clients: int = 50
    """Of each crowd."""
    sample_seconds: float = 5.0
    trouble_seconds: float = 15.0
    """From one storm or kill to the next."""
    seed: int = 0


class Run:
    """One run, in a folder of its own."""

    def __init__(self, options: Options, folder: Path, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._server = ServerProcess(folder, "", SETTINGS)
        self._random = random.Random(f"{options.seed} trouble")
        self._crowds: list[subprocess.Popen[bytes]] = []
        self._record: Record

    async def run(self) -> tuple[Record, list[str]]:
        """What was seen, and what is wrong with it."""
        options = self._options
        async with trio.open_nursery() as background:
            await self._server.start(background)
            try:
                self._record = Record(await self._look())
                for number in range(options.crowds):
                    self._crowds.append(self._crowd(number, background))
                with trio.move_on_after(options.seconds):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._watch)
                        nursery.start_soon(self._make_trouble, background)
                for crowd in self._crowds:
                    await self._kill(crowd)
                self._record.after = await self._until_gone()
                self._say(f"everybody is gone: {self._record.after}")
                faults = judge(self._record)
                code = await self._server.stop()
                faults += [f"at SIGTERM the server ended with {code}"] if code else []
                faults += [f"the server wrote: {line}" for line in self._server.complaints()[:20]]
            finally:
                for crowd in self._crowds:
                    crowd.kill()
                self._server.kill()
            background.cancel_scope.cancel()
        return self._record, faults

    async def _look(self) -> Sample:
        return await trio.to_thread.run_sync(look, self._server.pid, self._server.http, trio.current_time())

    async def _watch(self) -> None:
        while True:
            await trio.sleep(self._options.sample_seconds)
            sample = await self._look()
            self._record.samples.append(sample)
            self._say(str(sample))

    async def _until_gone(self) -> Sample:
        with trio.move_on_after(GONE_SECONDS):
            while True:
                sample = await self._look()
                if (
                    not any(sample.numbers[name] for name in GAUGES)
                    and sample.files <= self._record.before.files + SPARE_FILES
                ):
                    return sample
                await trio.sleep(0.5)
        return await self._look()

    async def _make_trouble(self, background: trio.Nursery) -> None:
        while True:
            await trio.sleep(self._options.trouble_seconds)
            number = self._random.randrange(len(self._crowds))
            if self._random.random() < 0.5:
                self._say("a storm: all lose their connections, and come back at once")
                for crowd in self._crowds:
                    crowd.send_signal(signal.SIGUSR1)
            else:
                self._say(f"crowd {number} is killed")
                await self._kill(self._crowds[number])
                self._crowds[number] = self._crowd(number, background)

    @staticmethod
    async def _kill(crowd: subprocess.Popen[bytes]) -> None:
        crowd.kill()
        await trio.to_thread.run_sync(crowd.wait)

    def _crowd(self, number: int, background: trio.Nursery) -> subprocess.Popen[bytes]:
        options = self._options
        arguments = {
            "tcp": self._server.tcp,
            "ws": self._server.ws,
            "secret": SECRET,
            "first-user": FIRST_USER + number * options.clients,
            "clients": options.clients,
            "seed": self._random.randrange(10**9),
            "heartbeat-seconds": HEARTBEAT_SECONDS,
        }
        command = [sys.executable, "-m", "soak.crowd", *(f"--{name}={value}" for name, value in arguments.items())]
        crowd = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE)
        assert crowd.stdout is not None
        output = trio.lowlevel.FdStream(os.dup(crowd.stdout.fileno()))
        crowd.stdout.close()
        background.start_soon(self._listen, output)
        return crowd

    async def _listen(self, stream: trio.lowlevel.FdStream) -> None:
        rest = b""
        async with stream:
            async for data in stream:
                *lines, rest = (rest + data).split(b"\n")
                self._record.ends.update(json.loads(line)["how"] for line in lines)


async def soak(options: Options, folder: Path, say: Callable[[str], None]) -> tuple[Record, list[str]]:
    """Do it all."""
    return await Run(options, folder, say).run()
