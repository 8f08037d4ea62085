"""Behind nginx, which ends TLS and has the page under a path."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest
from playwright.sync_api import Browser, expect

from browser.conftest import OpenPage, missing
from browser.house import House, free_ports
from browser.test_room import enter, say

NGINX = Template("""
daemon off; master_process off; worker_processes 1;
pid $folder/nginx.pid; error_log $folder/error.log;
events {}
http {
  access_log off;
  client_body_temp_path $folder/body; proxy_temp_path $folder/proxy; fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi; scgi_temp_path $folder/scgi;
  ssl_certificate $folder/cert.pem; ssl_certificate_key $folder/key.pem;
  server {
    listen 127.0.0.1:$port ssl;
    proxy_set_header Host $$http_host;
    proxy_set_header X-Forwarded-For $$remote_addr;
    proxy_set_header X-Forwarded-Proto $$scheme;
    location /apps/live/ { proxy_pass http://127.0.0.1:$http/; }
  }
  server {
    listen 127.0.0.1:$ws_port ssl;
    location / {
      proxy_pass http://127.0.0.1:$ws;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $$http_upgrade;
      proxy_set_header Connection upgrade;
    }
  }
}
""")


@pytest.fixture
def proxied(tmp_path: Path, browser: Browser) -> Iterator[tuple[House, str]]:
    """A server, and the address at which the proxy has its page."""
    nginx, openssl = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin"), shutil.which("openssl")
    if nginx is None or openssl is None:
        missing("nginx")
    port, ws_port = free_ports(2)
    origin = f"https://127.0.0.1:{port}"
    house = House(
        tmp_path,
        ws__public_url=f"wss://127.0.0.1:{ws_port}",
        ws__allowed_origins=f'["{origin}"]',
        http__trusted_proxies='["127.0.0.1"]',
        http__path="/apps/live",
    )
    certificate: list[Path | str] = [
        "-keyout",
        tmp_path / "key.pem",
        "-out",
        tmp_path / "cert.pem",
        "-subj",
        "/CN=127.0.0.1",
    ]
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *certificate],
        check=True,
        capture_output=True,
    )
    config = tmp_path / "nginx.conf"
    ports = {"port": port, "ws_port": ws_port, "ws": house.ports["ws"], "http": house.ports["http"]}
    config.write_text(NGINX.substitute(folder=tmp_path, **ports))
    house.start()
    process = subprocess.Popen([nginx, "-c", config, "-p", tmp_path, "-e", tmp_path / "error.log"])
    yield house, f"{origin}/apps/live/"
    process.terminate()
    process.wait(10)
    house.stop()


def test_under_a_path_and_behind_tls(proxied: tuple[House, str], open_page: OpenPage) -> None:
    house, address = proxied
    anchor, room = house.open_room("Behind a proxy")
    page = open_page(at=house, path="/", ignore_https_errors=True)
    page.goto(address)
    page.context.add_cookies([{"name": "qytk", "value": anchor.session, "url": address, "secure": True}])
    page.reload()
    page.locator(".card").click()
    enter(page)
    assert page.url == f"{address}#/room/{room}"
    with house.tcp(house.person(), room) as tcp:
        say(page, "through the proxy")
        assert tcp.heard() == "through the proxy"
        tcp.say(room, "and back")
        expect(page.locator(".row .content")).to_have_text(["through the proxy", "and back"])
    cookies = [each for each in page.context.cookies() if each["name"] == "qytk"]
    assert cookies
