"""Viewers who talk, like, come and go; and the moving test picture."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import trio

from demo.cast import LINES, VIEWERS
from demo.server import Demo
from qiyu.client import connect

FIRST_VIEWER_ID = 900_000
PICTURE = (
    "gradients=size=1280x720:rate=25:speed=0.02:nb_colors=4:c0=0x12324f:c1=0xf2a65a:c2=0x2c7a7b:c3=0xd96c5f:seed=7"
)
"""Colours of a dawn, which move."""
LIKES = 0.2
"""How often somebody who says something likes the room as well."""
SECONDS_BETWEEN = (4.0, 30.0)
"""How long each viewer thinks before saying something: all together, two or three messages a second."""


async def talk(demo: Demo, room_id: int, viewers: int = len(VIEWERS)) -> None:
    """Have people talk in a room until cancelled."""
    async with trio.open_nursery() as nursery:
        for number in range(viewers):
            nursery.start_soon(_viewer, demo, room_id, number)
            await trio.sleep(0.05)


async def _viewer(demo: Demo, room_id: int, number: int) -> None:
    name = VIEWERS[number % len(VIEWERS)]
    user_id = FIRST_VIEWER_ID + number
    lines = random.Random(number)  # the same people say the same things in every demo
    token = partial(demo.token, user_id, name)
    async with (
        connect(demo.ws_url, user_id=user_id, token=token, room_id=room_id) as client,
        trio.open_nursery() as nursery,
    ):

        async def listen() -> None:
            async for _ in client:
                pass

        nursery.start_soon(listen)
        await trio.sleep(lines.uniform(0.2, SECONDS_BETWEEN[0]))
        while True:
            await client.send_room(lines.choice(LINES))
            if lines.random() < LIKES:
                await client.like(lines.randrange(1, 6))
            await trio.sleep(lines.uniform(*SECONDS_BETWEEN))


@contextmanager
def test_picture(push_url: str | None, stream_key: str | None) -> Iterator[str]:
    """Push a moving picture with a tone while inside; what is said is whether there is one."""
    ffmpeg = shutil.which("ffmpeg")
    if not push_url or not stream_key:
        yield "no picture: this server takes none"
        return
    if ffmpeg is None:
        yield "no picture: ffmpeg is not installed"
        return
    picture = ["-f", "lavfi", "-i", PICTURE]
    sound = ["-f", "lavfi", "-i", "sine=frequency=330:beep_factor=4:sample_rate=44100"]
    video = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p", "-g", "25"]
    audio = ["-c:a", "aac", "-b:a", "64k"]
    target = ["-f", "flv", f"{push_url}/{stream_key}"]
    process = subprocess.Popen(
        [ffmpeg, "-loglevel", "error", "-re", *picture, "-re", *sound, *video, *audio, *target],
        stdin=subprocess.DEVNULL,
    )
    try:
        yield "a moving test picture"
    finally:
        process.terminate()
        process.wait(10)
