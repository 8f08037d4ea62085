"""`python -m bench.video`: how late the picture is, what viewers cost, and what the chat beside them notices."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from typing import Final

from demo.__main__ import open_rooms
from demo.screenshots import free_ports
from demo.server import Demo, demo_server

from bench import machine
from bench.video import chat, clock, engine, latency
from bench.video.viewers import crowd

VIEWERS: Final = (1, 10, 100)
BESIDE_CHAT: Final = (0, 200)
SETTLE_SECONDS: Final = 3.0
OPEN: Final = {"QIYU_VIDEO__OPEN": "true"}


def main() -> None:
    """Measure what is wanted."""
    measures: dict[str, Callable[[Demo, int, str, float], None]] = {
        "latency": _latency,
        "capacity": _capacity,
        "chat": _chat,
    }
    parser = argparse.ArgumentParser(prog="python -m bench.video", description=__doc__)
    parser.add_argument("what", nargs="*", choices=[[], *measures], help=f"of {', '.join(measures)}; all unless given")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each figure; 20 unless given")
    arguments = parser.parse_args()
    if shutil.which("ffmpeg") is None:
        raise SystemExit("no ffmpeg: apt-get install ffmpeg")
    print(", ".join(f"{name}: {value}" for name, value in machine.description().items()))
    ports = dict(zip(("tcp", "ws", "http", "rtmp"), free_ports(4), strict=True))
    with demo_server(ports, **OPEN) as demo:
        (session, room_id), *_ = open_rooms(demo)
        config = demo.call("living/anchorConfig", session, roomId=room_id)
        for name in arguments.what or measures:
            measures[name](demo, room_id, f"{config['pushUrl']}/{config['streamKey']}", arguments.seconds)


def _latency(demo: Demo, room_id: int, push_url: str, seconds: float) -> None:
    print("\n| from glass to glass | encoder | median ms | 95 % below | frames shown a second |\n|---|---|---|---|---|")
    if latency.chromium() is None:
        print("left out: no chromium")
        return
    for encoder in clock.ENCODERS:
        for sound in (True, False):
            with clock.push(push_url, encoder, sound=sound):
                late = latency.measure(f"{demo.ws_url}/live/{room_id}", seconds)
            _tell_late(f"qiyu{'' if sound else ', no sound'}", encoder, late)
    if not engine.is_there() or not latency.get_hls_js():
        print("HLS left out: nginx with its rtmp module, and hls.js by npm, are needed")
        return
    for encoder in (*clock.ENCODERS, clock.SHORT):
        rtmp_port, http_port = free_ports(2)
        with (
            engine.nginx(rtmp_port, http_port) as playlist,
            clock.push(f"rtmp://127.0.0.1:{rtmp_port}/live/room", encoder),
        ):
            pieces = engine.wait_for_playlist(playlist)
            for behind in ("1", "3"):
                late = latency.measure(playlist, seconds, player="hls.js", behind=behind)
                _tell_late(f"HLS by nginx, hls.js {behind} pieces behind", encoder, late)
            lengths = [line.partition(":")[2].rstrip(",") for line in pieces.splitlines() if line.startswith("#EXTINF")]
            print(f"(its pieces, in seconds: {' '.join(lengths)})")


def _tell_late(what: str, encoder: str, late: latency.Late) -> None:
    unread = f" ({late.unread} not read)" if late.unread else ""
    print(
        f"| {what} | {encoder} | {late.median:.0f} | {late.p95:.0f} | {late.frames_a_second:.1f}{unread} |", flush=True
    )


def _capacity(demo: Demo, room_id: int, push_url: str, seconds: float) -> None:
    print(
        "\n| viewers | encoder | CPU, % of a core | resident MiB | Mbit/s to the slowest, and to all |"
        "\n|---|---|---|---|---|"
    )
    for encoder in clock.ENCODERS:
        with clock.push(push_url, encoder):
            for count in VIEWERS:
                with crowd(demo.ports["ws"], room_id, count) as viewers:
                    time.sleep(SETTLE_SECONDS)
                    viewers.read()
                    begun, used = time.monotonic(), machine.cpu_seconds(demo.pid)
                    time.sleep(seconds)
                    elapsed, used = time.monotonic() - begun, machine.cpu_seconds(demo.pid) - used
                    least, total = (8 * size / elapsed / 1e6 for size in viewers.read())
                    resident = machine.resident_bytes(demo.pid) / 2**20
                print(
                    f"| {count} | {encoder} | {100 * used / elapsed:.1f} | {resident:.0f} | {least:.2f}, {total:.0f} |",
                    flush=True,
                )


def _chat(demo: Demo, room_id: int, push_url: str, seconds: float) -> None:
    print("\n| viewers beside the chat | median ms | p99 ms | deliveries |\n|---|---|---|---|")
    with clock.push(push_url, "at once"):
        for count in BESIDE_CHAT:
            if count:
                with crowd(demo.ports["ws"], room_id, count):
                    time.sleep(SETTLE_SECONDS)
                    _tell_chat(count, chat.measure(demo, room_id, seconds))
            else:
                _tell_chat(count, chat.measure(demo, room_id, seconds))


def _tell_chat(viewers: int, spread: chat.Spread) -> None:
    print(f"| {viewers} | {spread.median:.2f} | {spread.p99:.2f} | {spread.deliveries} |", flush=True)


if __name__ == "__main__":
    main()
