"""`python -m demo.screenshots` (or `make screenshots`): pictures of the running page, into docs/screenshots."""

from __future__ import annotations

import shutil
import socket
import threading
from pathlib import Path
from typing import Final

import trio
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from demo.__main__ import PASSWORD, open_rooms
from demo.crowd import talk, test_picture
from demo.server import Demo, demo_server

FOLDER: Final = Path(__file__).parent.parent / "docs/screenshots"
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
FLAGS: Final = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
DESKTOP: Final[ViewportSize] = {"width": 1280, "height": 800}
STUDIO: Final[ViewportSize] = {"width": 1280, "height": 960}  # where all that an anchor has is seen
PHONE: Final[ViewportSize] = {"width": 390, "height": 844}
SETTLED_MS: Final = 1500
TALK_MS: Final = 9000  # until enough was said


class Photographer:
    """Somebody with a browser, and a camera."""

    def __init__(self, browser: Browser, demo: Demo) -> None:
        self._browser = browser
        self.demo = demo

    def page(self, session: str = "", *, language: str, theme: str, size: ViewportSize, hash_: str = "") -> Page:
        """A page, for whoever has the session."""
        context = self._browser.new_context(
            locale=language,
            color_scheme="dark" if theme == "dark" else "light",
            viewport=size,
            device_scale_factor=2 if size is PHONE else 1,
        )
        if session:
            context.add_cookies([{"name": "qytk", "value": session, "url": self.demo.url}])
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(self.demo.url + hash_)
        return page

    @staticmethod
    def shoot(page: Page, name: str) -> None:
        """Take a picture of what the page shows now."""
        page.wait_for_timeout(SETTLED_MS)
        page.screenshot(path=FOLDER / f"{name}.jpg", type="jpeg", quality=82)


def main() -> None:
    """Take all of them."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise SystemExit("no chromium: apt-get install chromium")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with demo_server(dict(zip(("tcp", "ws", "http", "rtmp"), free_ports(4), strict=True))) as demo:
        (anchor, room_id), *_ = open_rooms(demo)
        config = demo.call("living/anchorConfig", anchor, roomId=room_id)
        scope = trio.CancelScope()
        crowd = threading.Thread(target=trio.run, args=(_talk_inside, scope, demo, room_id))
        crowd.start()
        try:
            with test_picture(config.get("pushUrl"), config.get("streamKey")), sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
                _take_all(Photographer(browser, demo), anchor, room_id)
                browser.close()
        finally:
            _stop(scope)
            crowd.join()


def _take_all(photographer: Photographer, anchor: str, room_id: int) -> None:
    _, viewer = photographer.demo.account("viewer", "你", PASSWORD)
    room = f"#/room/{room_id}"
    for language, tongue in (("zh-CN", "zh"), ("en-US", "en")):
        for theme, size, where in (("light", DESKTOP, "desktop"), ("dark", PHONE, "phone")):
            look = {"language": language, "theme": theme, "size": size}
            page = photographer.page(**look)  # type: ignore[arg-type]
            page.wait_for_selector(".card")
            photographer.shoot(page, f"home-{where}-{theme}-{tongue}")
            page.context.close()
            page = photographer.page(viewer, hash_=room, **look)  # type: ignore[arg-type]
            page.wait_for_selector(".composer textarea:enabled")
            page.wait_for_timeout(TALK_MS)
            page.fill(".composer textarea", "第一次来，真好看！" if tongue == "zh" else "Lovely, hello from here!")
            page.press(".composer textarea", "Enter")
            photographer.shoot(page, f"room-{where}-{theme}-{tongue}")
            page.context.close()
    page = photographer.page(anchor, language="zh-CN", theme="dark", size=STUDIO, hash_=room)
    page.wait_for_selector(".composer textarea:enabled")
    page.wait_for_timeout(TALK_MS)
    photographer.shoot(page, "anchor-desktop-dark-zh")


_token: trio.lowlevel.TrioToken | None = None


async def _talk_inside(scope: trio.CancelScope, demo: Demo, room_id: int) -> None:
    global _token  # noqa: PLW0603
    _token = trio.lowlevel.current_trio_token()
    with scope:
        await talk(demo, room_id)


def _stop(scope: trio.CancelScope) -> None:
    if _token is not None:
        _token.run_sync_soon(scope.cancel)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


if __name__ == "__main__":
    main()
