"""What stands in deploy/ for nginx, systemd and containers."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from certificates import make_certificate, needs_openssl, trusting
from documents import ROOT
from flow.test_living import register
from nginx import framed, needs_nginx, running
from qiyu.client import Api, Message, Options, connect
from qiyu.config import load_settings
from qiyu.drivers.event_source import best_source
from servers import RunningServer, Start
from video import free_port

DEPLOY = ROOT / "deploy"
NAME = "live.example.com"

ON_ONE_SOURCE = pytest.mark.parametrize("start_server", [best_source], indirect=True, ids=["best"])


@asynccontextmanager
async def nginx(server: RunningServer, folder: Path, port: int) -> AsyncIterator[ssl.SSLContext]:
    """nginx with the file as it is delivered, but for ports, the name and the certificate."""
    certificate, key = make_certificate(folder, host=NAME)
    trust = trusting(certificate)
    certificate.rename(folder / "fullchain.pem")
    key.rename(folder / "privkey.pem")
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    for old, new in {
        "127.0.0.1:8080": server.http,
        "127.0.0.1:8086": server.ws,
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "listen 80": f"listen 127.0.0.1:{free_port()}",
        "/etc/letsencrypt/live/live.example.com": str(folder),
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    async with running(folder, framed(folder, text), port):
        yield trust


@needs_openssl
@needs_nginx
@ON_ONE_SOURCE
async def test_behind_nginx_there_is_one_name_for_all(start_server: Start, tmp_path: Path) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    settings = {
        "ws__public_url": f"wss://{address}",
        "ws__allowed_origins": f'["https://{address}"]',
        "http__trusted_proxies": '["127.0.0.1"]',
    }
    async with start_server(**settings) as server, nginx(server, tmp_path, port) as trust:
        options = Options(ssl_context=trust)
        ann, session = await register(server, "ann")
        api = Api(f"https://{address}", session, options=options)
        assert (await api.access()).url == f"wss://{address}"
        async with (
            await server.tcp_peer(10_500, 7) as other,
            connect(api.access, user_id=ann, room_id=7, options=options) as client,
        ):
            await client.send_room("through the proxy")
            await other.say(7, "and back")
            with trio.fail_after(30):
                item = await anext(client)
            assert isinstance(item, Message)
            assert item.content == "and back"
            assert await api.online([ann]) == {ann: True}
        command = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}"]
        for path, status in (("/", "200"), ("/metrics", "404"), ("/healthz", "200")):
            done = await trio.run_process([*command, f"https://{address}{path}"], capture_stdout=True)
            assert done.stdout.decode() == status, path
        login = ["curl", "-ski", f"https://{address}/user/login", "-d", "name=ann", "-d", "password=a long password"]
        head = (await trio.run_process(login, capture_stdout=True)).stdout.decode()
        assert re.search(r"(?im)^set-cookie: __Host-qytk=.*; Secure", head)
        log = (tmp_path / "access.log").read_text()
        assert "GET / HTTP/1.1" in log
        assert "%10001" not in log  # no login token


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "qiyu.service").read_text(encoding="utf-8")
    assert "ExecStart=/opt/qiyu/venv/bin/qiyu serve --config /etc/qiyu/config.toml\n" in text
    unit = tmp_path / "qiyu.service"
    unit.write_text(text.replace("/opt/qiyu/venv/bin/qiyu", sys.executable))  # it is to be there
    done = subprocess.run(["systemd-analyze", "verify", unit], check=False, capture_output=True, text=True)  # noqa: S607
    assert [line for line in (done.stdout + done.stderr).splitlines() if "qiyu.service" in line] == []


def test_the_unit_has_files_for_as_many_connections_as_the_settings_allow() -> None:
    (files,) = re.findall(r"^LimitNOFILE=(\d+)$", (DEPLOY / "qiyu.service").read_text(), re.MULTILINE)
    assert int(files) > load_settings(environ={}).limits.connections


def test_the_image_is_made_of_what_there_is_and_its_server_would_start(tmp_path: Path) -> None:
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    sources = [
        source for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for source in line.split()
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", "src", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {*wheel["force-include"], *(["hatch_build.py"] if "hooks" in wheel else [])}
    assert needed == set(sources)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored
    environ = dict(re.findall(r"(QIYU_\w+)=(\S+)", text[text.index("ENV ") : text.index("USER ")]))
    settings = load_settings(environ=environ | {"QIYU_AUTH__SECRET": "s" * 32})
    ports = {settings.tcp.port, settings.ws.port, settings.http.port, settings.rtmp.port}
    assert ports == set(map(int, re.findall(r"^EXPOSE (.+)$", text, re.MULTILINE)[0].split()))
    assert {settings.tcp.host, settings.ws.host, settings.http.host, settings.rtmp.host} == {"0.0.0.0"}
    assert re.search(r'^CMD \["qiyu", "serve"\]$', text, re.MULTILINE)
