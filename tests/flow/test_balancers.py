"""deploy/nginx-several.conf and deploy/haproxy-several.cfg, each with the real thing before two instances."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest
import trio

from installation import Instance, installation, logged_in
from raw_clients import BIZ, ROOM, Closed, RawTcpClient, RawWsClient
from redis_servers import free_port

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
USUAL: Final = {"HTTP": 8080, "WS": 8086, "TCP": 8085}
USERS: Final = range(20_001, 20_005)
NGINX, HAPROXY = shutil.which("nginx"), shutil.which("haproxy")
HAS_STREAM: Final = Path("/usr/lib/nginx/modules/ngx_stream_module.so").exists()


def adapted(text: str, instances: list[Instance], listen: dict[str, int]) -> str:
    """With the ports of these instances, and ports of our own to listen on."""
    for name, usual in USUAL.items():
        for number, instance in enumerate(instances, 1):
            text = text.replace(
                f"10.0.0.{number}:{usual} check port 8080",
                f"127.0.0.1:{instance.ports[name]} check port {instance.ports['HTTP']}",
            )
            text = text.replace(f"10.0.0.{number}:{usual}", f"127.0.0.1:{instance.ports[name]}")
        text = text.replace(f"listen {usual};", f"listen 127.0.0.1:{listen[name]};")
        text = text.replace(f"bind :{usual}", f"bind 127.0.0.1:{listen[name]}")
    assert "10.0.0.1:" not in text
    # Files for as many clients as a test has.
    return (
        text.replace("maxconn 40000", "maxconn 1000")
        .replace("worker_rlimit_nofile 80000;\n", "")
        .replace("worker_connections 40000", "worker_connections 1000")
    )


@contextmanager
def balancer(kind: str, folder: Path, instances: list[Instance]) -> Iterator[dict[str, int]]:
    listen = {name: free_port() for name in USUAL}
    if kind == "nginx":
        config = folder / "nginx.conf"
        text = adapted((DEPLOY / "nginx-several.conf").read_text("utf-8"), instances, listen)
        config.write_text(text.replace("/run/nginx-several.pid", str(folder / "nginx.pid")), "utf-8")
        command = [str(NGINX), "-c", str(config), "-g", "daemon off;"]
    else:
        config = folder / "haproxy.cfg"
        config.write_text(adapted((DEPLOY / "haproxy-several.cfg").read_text("utf-8"), instances, listen), "utf-8")
        command = [str(HAPROXY), "-db", "-f", str(config)]
    with (folder / "balancer.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield listen
        finally:
            process.terminate()
            process.wait(20)


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            "nginx",
            marks=pytest.mark.skipif(
                NGINX is None or not HAS_STREAM, reason="nginx with its stream module is not installed"
            ),
        ),
        pytest.param("haproxy", marks=pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")),
    ],
)
async def test_clients_go_round_and_those_of_a_killed_instance_come_back(kind: str, tmp_path: Path) -> None:
    with installation(tmp_path) as it:
        instances = it.start(2)
        with balancer(kind, tmp_path, instances) as ports:
            with trio.fail_after(20):
                while not await trio.to_thread.run_sync(is_ready, ports["HTTP"]):  # noqa: ASYNC110
                    await trio.sleep(0.1)
            tcp, ws = (f"127.0.0.1:{ports[name]}" for name in ("TCP", "WS"))
            async with AsyncExitStack() as stack:
                peers: list[RawTcpClient | RawWsClient] = []
                for user in USERS:
                    token = instances[0].token(user)
                    if user % 2:
                        peer: RawTcpClient | RawWsClient = await RawWsClient.log_in(ws, user, token)
                    else:
                        peer = await logged_in(tcp, user, token)
                    peers.append(await stack.enter_async_context(peer))
                    await peer.send(ROOM, data={"roomId": 7})
                    await peer.expect(ROOM)
                assert [instance.metric("sessions") for instance in instances] == [2, 2]
                await peers[0].say(7, "to all of you")
                for peer in peers[1:]:
                    assert (await peer.expect(BIZ))["data"]["content"] == "to all of you"
                instances[0].kill()
                with trio.fail_after(20):
                    for user in USERS:
                        again = await come_back(tcp, user, instances[1].token(user))
                        await stack.enter_async_context(again)
                assert instances[1].metric("sessions") == len(USERS)
            assert await trio.to_thread.run_sync(is_ready, ports["HTTP"])


async def come_back(address: str, user: int, token: str) -> RawTcpClient:
    while True:
        try:
            return await logged_in(address, user, token)
        except (OSError, Closed):
            await trio.sleep(0.1)
