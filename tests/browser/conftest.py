"""A real browser: Debian's chromium, driven by playwright. Where there is none, these tests are skipped, but in CI."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize, expect, sync_playwright

from browser.house import House, Person

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_MS: Final = 30_000  # a machine that is busy with something else is no fault of the page
DESKTOP: Final[ViewportSize] = {"width": 1280, "height": 800}
PHONE: Final[ViewportSize] = {"width": 390, "height": 844}
ALLOWED = re.compile(r"ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|WebSocket connection to .* failed")
"""What a browser writes on its console itself, when a server is gone."""

OpenPage: TypeAlias = Callable[..., Page]


def missing(what: str) -> NoReturn:
    """Something that these tests need is not here."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}: .ci/run installs it")
    pytest.skip(f"{what} is not installed")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        missing("chromium")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[House]:
    """A server that all tests share which do it no harm."""
    house = House(tmp_path_factory.mktemp("house"))
    house.start()
    yield house
    house.stop()


@pytest.fixture
def own_house(tmp_path: Path, browser: Browser) -> Iterator[House]:
    """A server of the test's own, to be killed."""
    house = House(tmp_path)
    house.start()
    yield house
    house.stop()


@pytest.fixture
def open_page(browser: Browser, house: House) -> Iterator[OpenPage]:
    """Opens a browser of its own for somebody; at the end none may have had anything to complain about."""
    complaints: list[str] = []
    contexts = []

    def complain(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not ALLOWED.search(message.text):
            complaints.append(f"{message.text} ({message.location.get('url', '')})")

    def open_page(
        person: Person | None = None,
        path: str = "/",
        *,
        at: House = house,
        language: str = "en-US",
        theme: Any = "light",
        size: ViewportSize = DESKTOP,
        motion: Any = "no-preference",
        expects: str = "",
        **how: Any,
    ) -> Page:
        context = browser.new_context(
            locale=language,
            color_scheme=theme,
            viewport=size,
            reduced_motion=motion,
            **how,
        )
        contexts.append(context)
        if person is not None:
            context.add_cookies([{"name": "qytk", "value": person.session, "url": at.url}])
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: None if expects and expects in message.text else complain(message))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(at.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
