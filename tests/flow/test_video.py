"""The picture, from an encoder to whoever watches: ffmpeg pushes, over real sockets."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from clips import AAC, H264, H264_AT_ONCE, decode, needs_ffmpeg, probe
from flow.test_living import call, register
from qiyu.drivers.event_source import best_source
from qiyu.storage.database import Database, database_url
from qiyu.storage.users import VIP, add_tag
from raw_clients import HEARTBEAT, Closed
from servers import RunningServer, Start
from video import Watcher, encoder, free_port

# The poller on another event source is tested by itself, and by all else in this folder.
ON_ONE_SOURCE = pytest.mark.parametrize("start_server", [best_source], indirect=True, ids=["best"])

pytestmark = [needs_ffmpeg, ON_ONE_SOURCE]


class Show:
    """A server with an open room, its anchor, and somebody who watches."""

    def __init__(self, server: RunningServer, room: int, anchor: int, session: str, guest: tuple[int, str]) -> None:
        self.server = server
        self.room = room
        self.anchor = anchor
        self._session = session
        self.guest, self._guest_session = guest

    async def config(self, *, as_anchor: bool = True) -> dict[str, Any]:
        code, config = await call(
            self.server, "/living/anchorConfig", self._session if as_anchor else self._guest_session, roomId=self.room
        )
        assert code == 200
        return dict(config)

    async def push_url(self) -> str:
        config = await self.config()
        return f"{config['pushUrl']}/{config['streamKey']}"

    async def watch(self, *, buffer: int = 0) -> Watcher:
        login = {"appId": 10001, "userId": self.guest, "token": self.server.token(self.guest)}
        return await Watcher.connect(self.server.ws, self.room, login, buffer=buffer)

    async def close(self) -> None:
        code, reason = await call(self.server, "/living/closeLiving", self._session, roomId=self.room)
        assert code == 200, reason

    async def is_on_air(self) -> bool:
        return bool((await self.config())["onAir"])


@pytest.fixture
async def show(start_server: Start, tmp_path: Path) -> AsyncIterator[Show]:
    async with open_show(start_server, tmp_path) as made:
        yield made


@asynccontextmanager
async def open_show(start_server: Start, folder: Path, **settings: Any) -> AsyncIterator[Show]:
    rooms = {"living__require_open_room": "true", "living__events": "true", "rtmp__port": free_port()}
    async with (
        start_server(**rooms | settings) as server,
        Database.open(database_url("", folder)) as database,
    ):
        anchor, session = await register(server, "anchor")
        guest = await register(server, "guest")
        await database.run(add_tag, anchor, VIP)
        code, data = await call(server, "/living/startingLiving", session, type=1)
        assert code == 200, data
        yield Show(server, data["roomId"], anchor, session, guest)


@pytest.mark.parametrize("options", [(*H264_AT_ONCE, *AAC), (*H264, *AAC)], ids=["at once", "with B-frames"])
async def test_what_ffmpeg_pushes_is_watched(show: Show, options: tuple[str, ...]) -> None:
    async with await show.watch() as early, encoder(await show.push_url(), *options):
        assert await early.next() == ""
        mime = await early.next()
        assert isinstance(mime, str)
        assert mime.startswith('video/mp4; codecs="avc1.')
        assert mime.endswith(',mp4a.40.2"')
        seen = await early.next_media(100)
        async with await show.watch() as late:
            assert await late.next() == mime
            seen_late = await late.next_media(60)
    for data in (seen, seen_late):
        streams = probe(data, "-show_entries", "stream=codec_name,width,height")["streams"]
        assert streams[0] == {"codec_name": "h264", "width": 192, "height": 108}
        assert decode(data)


async def test_the_room_knows(show: Show) -> None:
    config = await show.config()
    assert (await show.config(as_anchor=False))["streamKey"] is None
    assert config["playUrl"] == f"ws://{show.server.ws}/live/{show.room}"
    assert config["onAir"] is False
    async with await show.server.ws_peer(show.guest, show.room) as member:
        async with encoder(await show.push_url()) as anchor:
            assert (await member.next_event("onAir"))["roomId"] == show.room
            assert await show.is_on_air()
            _, listed = await call(show.server, "/living/list", type=1, page=1, pageSize=10)
            assert [room["onAir"] for room in listed["list"]] == [True]
            await anchor.stop()
            await member.next_event("offAir")
        assert not await show.is_on_air()


async def test_the_end_of_a_killed_encoder_is_seen_at_once(show: Show) -> None:
    async with await show.watch() as viewer, encoder(await show.push_url()) as anchor:
        assert await viewer.next() == ""
        assert await viewer.next_text()
        anchor.kill()
        killed = time.monotonic()
        assert await viewer.next_text() == ""
        assert time.monotonic() - killed < 1  # mostly a few hundredths (docs/video.md)


async def test_a_frozen_encoder_is_off_air_and_may_come_back(start_server: Start, tmp_path: Path) -> None:
    async with open_show(start_server, tmp_path, video__silent_seconds=1) as show:
        url = await show.push_url()
        async with await show.watch() as viewer, encoder(url) as anchor:
            assert await viewer.next() == ""
            assert await viewer.next_text()
            anchor.freeze()
            assert await viewer.next_text() == ""
            async with encoder(url):
                assert (await viewer.next_text()).startswith("video/mp4")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda url: url[:-3] + "AAA", "the stream key is wrong, or that of another room"),
        (lambda url: url.replace("?key=", "0?key="), "the stream key is wrong, or that of another room"),
        (lambda url: url.partition("?")[0], "the stream key has no key: expected ROOM?key="),
        (lambda url: url.replace("/live/", "/app/"), "application 'app': expected live, as in rtmp://host/live"),
    ],
)
async def test_a_wrong_key_is_refused_in_words_that_ffmpeg_prints(show: Show, spoil: Any, reason: str) -> None:
    async with encoder(spoil(await show.push_url())) as refused:
        assert reason in await refused.said()
    assert not await show.is_on_air()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-c:v", "libx264", "-pix_fmt", "yuv444p", *AAC), "H.264 with 4:4:4 and 8 bits: browsers show 4:2:0"),
        ((*H264_AT_ONCE, "-c:a", "mp3"), "audio codec 2 (MP3): expected AAC"),
        (("-c:v", "flv1", *AAC), "video codec 2 (Sorenson H.263): expected H.264 or H.265"),
    ],
)
async def test_what_no_browser_shows_is_refused_in_words(show: Show, options: tuple[str, ...], reason: str) -> None:
    async with encoder(await show.push_url(), *options) as refused:
        assert reason in await refused.said()


async def test_a_file_pushed_at_full_speed_is_refused_in_words(show: Show) -> None:
    async with encoder(await show.push_url(), paced=False, seconds=600) as refused:
        assert "the picture comes faster than it is to be shown (ffmpeg: put -re before -i)" in await refused.said()


async def test_a_second_encoder_is_refused_and_the_first_goes_on(show: Show) -> None:
    url = await show.push_url()
    async with await show.watch() as viewer, encoder(url):
        assert await viewer.next() == ""
        assert await viewer.next_text()
        async with encoder(url) as second:
            assert f"room {show.room} is on air already: another encoder is pushing" in await second.said()
        await viewer.next_media(30)


async def test_a_room_that_is_closed_ends_the_push_and_the_watching(show: Show) -> None:
    url = await show.push_url()
    async with await show.watch() as viewer, encoder(url) as anchor:
        assert await viewer.next() == ""
        assert await viewer.next_text()
        await show.close()
        assert f"room {show.room} was closed" in await anchor.said()
        assert await viewer.closed() == 1000
    async with encoder(url) as late:
        assert f"room {show.room} is not open" in await late.said()
    async with await show.watch() as viewer:
        assert await viewer.closed() == 4004


async def test_only_who_may_watch_watches(show: Show) -> None:
    for login in ({"appId": 10001, "userId": show.guest, "token": "x"}, {}):
        async with await Watcher.connect(show.server.ws, show.room, dict(login)) as viewer:
            assert await viewer.closed() == 1008
    with pytest.raises(Closed) as rejected:
        await Watcher.connect(show.server.ws, "x", {})
    assert rejected.value.code == 400


async def test_a_picture_open_to_all_wants_no_login(start_server: Start, tmp_path: Path) -> None:
    async with open_show(start_server, tmp_path, video__open="true") as show:
        async with encoder(await show.push_url()), await Watcher.connect(show.server.ws, show.room) as viewer:
            assert await viewer.next_text() in {"", 'video/mp4; codecs="avc1.42C00B,mp4a.40.2"'}


async def test_to_watch_is_not_to_be_online(show: Show) -> None:
    async with await show.server.ws_peer(show.guest, show.room) as member, await show.watch() as viewer:
        assert await viewer.next() == ""
        await member.send(HEARTBEAT)
        await member.expect(HEARTBEAT)  # as ever: nobody has replaced it


async def test_a_viewer_that_does_not_read_costs_the_others_nothing(start_server: Start, tmp_path: Path) -> None:
    async with open_show(start_server, tmp_path, video__viewer_bytes=20_000) as show:
        heavy = (*H264_AT_ONCE, "-qp", "5", *AAC)  # more than a socket's buffers take
        async with (
            await show.watch() as quick,
            await show.watch(buffer=4096) as stuck,
            encoder(await show.push_url(), *heavy, size="640x360"),
        ):
            assert await quick.next() == await stuck.next() == ""
            assert (await quick.next_text()).startswith("video/mp4")
            while not await counted(show.server, "viewers_behind"):
                await quick.next_media(20)
            await quick.next_media(20)
            assert await counted(show.server, "fragments_dropped")
            assert await counted(show.server, "viewers_slow") == 0
            assert (await stuck.next_text()).startswith("video/mp4")  # it has only been left out


async def counted(server: RunningServer, name: str) -> int:
    """A counter, as /metrics has it."""

    def ask() -> str:
        with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    text = await trio.to_thread.run_sync(ask)
    return int(float(re.findall(rf"^qiyu_{name}(?:_total)? (\S+)$", text, re.MULTILINE)[0]))


async def test_the_server_stops_in_order_with_a_push_on_air(show: Show) -> None:
    async with await show.watch() as viewer, encoder(await show.push_url()) as anchor:
        assert await viewer.next() == ""
        assert await viewer.next_text()
        show.server.stop()
        assert "the server stops: push again in a moment" in await anchor.said()
        assert await viewer.closed() == 1012
        with trio.fail_after(5):
            await show.server.stopped.wait()
