"""Encoders other than ffmpeg: OBS by the words that it uses, and GStreamer's two sinks."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from clips import AAC, AUDIO, H264_AT_ONCE, VIDEO, needs_ffmpeg, probe, tags
from flow.test_video import ON_ONE_SOURCE, Show, open_show
from qiyu.protocol.rtmp.amf0 import Value, encode
from raw_clients import PATIENCE_SECONDS
from rtmp_encoder import Encoder, commands, read_answers
from servers import Start

pytestmark = [needs_ffmpeg, ON_ONE_SOURCE]

GST = shutil.which("gst-launch-1.0")
OBS_CHUNK_BYTES = 4096


@pytest.fixture
async def show(start_server: Start, tmp_path: Path) -> AsyncIterator[Show]:
    async with open_show(start_server, tmp_path) as made:
        yield made


class Obs:
    """OBS Studio, as its librtmp speaks: the server is its address, the stream key the name of what it publishes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._encoder = Encoder()
        self._answers = b""

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: str) -> AsyncIterator[Obs]:
        address = urlsplit(server)
        assert address.hostname
        assert address.port
        async with await trio.open_tcp_stream(address.hostname, address.port) as stream:
            yield cls(stream)

    async def publish(self, server: str, key: str) -> None:
        """Press Start Streaming."""
        encoder = self._encoder
        told = {
            "app": urlsplit(server).path[1:],
            "type": "nonprivate",
            "flashVer": "FMLE/3.0 (compatible; FMSc/1.0)",
            "swfUrl": server,
            "tcUrl": server,
        }
        encoder.call("connect", 1, told)
        await self._send()
        await self._until("_result")
        encoder.sent += encoder.chunker.set_chunk_size(OBS_CHUNK_BYTES)
        encoder.call("releaseStream", 2, None, key)
        encoder.call("FCPublish", 3, None, key)
        encoder.call("createStream", 4, None)
        await self._send()
        await self._until("_result", 4)
        encoder.call("publish", 5, None, key, "live", stream_id=1)
        await self._send()
        await self._until("onStatus")

    async def show(self) -> None:
        """A second of a picture with sound, as an encoder sends it."""
        metadata: Value = {
            "duration": 0,
            "width": 192,
            "height": 108,
            "videocodecid": 7,
            "audiocodecid": 10,
            "encoder": "obs",
        }
        self._encoder.data(0, encode(["@setDataFrame", "onMetaData", metadata]))
        for tag in tags(*H264_AT_ONCE, *AAC):
            if tag.type == VIDEO:
                self._encoder.video(tag.timestamp, tag.body)
            elif tag.type == AUDIO:
                self._encoder.audio(tag.timestamp, tag.body)
        await self._send()

    async def stop(self, key: str) -> None:
        """Press Stop Streaming."""
        self._encoder.call("FCUnpublish", 6, None, key)
        self._encoder.call("deleteStream", 7, None, 1)
        await self._send()

    @property
    def status(self) -> dict[str, str]:
        """What the server said of the stream, the last time."""
        said = [command for command in commands(read_answers(self._answers)) if command[0] == "onStatus"]
        return dict(said[-1][-1])

    async def _send(self) -> None:
        await self._stream.send_all(self._encoder.take())

    async def _until(self, name: str, transaction: int | None = None) -> None:
        with trio.fail_after(PATIENCE_SECONDS):
            while not self._has(name, transaction):
                data = await self._stream.receive_some()
                assert data, "the server has closed"
                self._answers += data

    def _has(self, name: str, transaction: int | None) -> bool:
        if len(self._answers) <= 2 * 1536 + 1:
            return False
        said = commands(read_answers(self._answers))
        return any(command[0] == name and transaction in {None, command[1]} for command in said)


async def test_obs_goes_on_air_with_the_server_and_the_key_that_the_page_shows(show: Show) -> None:
    config = await show.config()
    server, key = config["pushUrl"], config["streamKey"]
    assert urlsplit(server).path == "/live"
    assert key.startswith(f"{show.room}?key=")
    async with await show.watch() as viewer, Obs.connect(server) as obs:
        assert await viewer.next() == ""
        await obs.publish(server, key)
        assert obs.status["code"] == "NetStream.Publish.Start"
        await obs.show()
        mime = await viewer.next_text()
        assert mime.startswith('video/mp4; codecs="avc1.')
        streams = probe(await viewer.next_media(20), "-show_entries", "stream=codec_name")["streams"]
        assert [stream["codec_name"] for stream in streams] == ["h264", "aac"]
        await obs.stop(key)
        assert await viewer.next_text() == ""


async def test_obs_shows_why_a_key_is_refused(show: Show) -> None:
    server = (await show.config())["pushUrl"]
    async with Obs.connect(server) as obs:
        await obs.publish(server, f"{show.room}?key=1-wrong")
        assert obs.status["level"] == "error"
        assert "the stream key" in obs.status["description"]


@pytest.mark.skipif(GST is None and not os.environ.get("CI"), reason="GStreamer is not installed")
@pytest.mark.parametrize("sink", [["rtmp2sink", "location={}"], ["rtmpsink", "location={} live=1"]], ids=lambda s: s[0])
async def test_gstreamer_goes_on_air(show: Show, sink: list[str]) -> None:
    sink = [part.format(await show.push_url()) for part in sink]
    picture = "videotestsrc is-live=true ! video/x-raw,format=I420,width=192,height=108,framerate=25/1"
    coded = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! flvmux streamable=true name=mux"
    sound = "audiotestsrc is-live=true ! voaacenc ! mux."
    command = ["gst-launch-1.0", "-q", *picture.split(), "!", *coded.split(), "!", *sink, *sound.split()]
    async with await show.watch() as viewer, trio.open_nursery() as nursery:
        assert await viewer.next() == ""
        run = partial(trio.run_process, command, stdout=subprocess.DEVNULL, check=False)
        process: trio.Process = await nursery.start(run)
        try:
            mime = await viewer.next_text()
            assert mime.startswith('video/mp4; codecs="avc1.')
            streams = probe(await viewer.next_media(30), "-show_entries", "stream=codec_name,width")["streams"]
            assert streams == [{"codec_name": "h264", "width": 192}, {"codec_name": "aac"}]
        finally:
            process.kill()
        assert await viewer.next_text() == ""
