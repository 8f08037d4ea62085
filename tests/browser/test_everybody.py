"""Whoever uses the page: with a phone, a keyboard or a screen reader, in Chinese or English, by day or by night."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from browser.conftest import DESKTOP, PHONE, OpenPage, missing
from browser.house import House, Person
from browser.test_room import enter, say

AXE = Path(__file__).parent / "node_modules/axe-core/axe.min.js"
MISSING_TEXT = "⟦"


@pytest.fixture(scope="module")
def axe() -> str:
    if not AXE.exists():
        missing("axe-core")
    return AXE.read_text()


@pytest.fixture(scope="module")
def scene(house: House) -> tuple[Person, Person, int]:
    """An anchor, a viewer, and the room they are in."""
    anchor, room = house.open_room("海边的清晨 by the sea", nick_name="小鱼")
    return anchor, house.person("viewer"), room


def serious(page: Page, axe: str) -> list[str]:
    """What keeps somebody from using what the page shows now."""
    page.wait_for_timeout(400)  # what moves has arrived
    page.evaluate(axe)
    found: Any = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']} ({each['impact']}): {node['html'][:160]} {node['failureSummary'][:200]}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]


def texts_of(page: Page) -> str:
    """All that is said, also what only screen readers say."""
    return str(
        page.evaluate("""() => [document.title, document.body.innerText,
            ...[...document.querySelectorAll('*')].flatMap((each) =>
                ['aria-label', 'title', 'placeholder'].map((name) => each.getAttribute(name) ?? ''))].join('\\n')""")
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["zh-CN", "en-US"])
def test_every_view_can_be_used_and_lacks_no_text(
    house: House, open_page: OpenPage, scene: tuple[Person, Person, int], axe: str, theme: str, language: str
) -> None:
    anchor, viewer, room = scene
    size = DESKTOP if theme == "light" else PHONE
    look = {"theme": theme, "language": language, "size": size}

    def check(page: Page) -> None:
        assert serious(page, axe) == []
        assert MISSING_TEXT not in texts_of(page)
        assert page.evaluate("document.documentElement.lang") == ("zh-CN" if language == "zh-CN" else "en")

    page = open_page(**look)
    expect(page.locator(".card").first).to_be_visible()
    check(page)
    page.locator(".who button").click()
    check(page)
    page.locator("dialog .segmented button").last.click()
    check(page)

    page = enter(open_page(anchor, f"/#/room/{room}", **look))
    with house.tcp(viewer, room, "viewer") as tcp:
        tcp.say(room, "你好 hello")
        say(page, "welcome")
        expect(page.locator(".row.mine.stored").last).to_be_visible()
        check(page)
        page.locator(".row .name >> text=viewer").first.click()
        check(page)
        page.locator("dialog .primary").click()
        page.fill(".drawer textarea", "psst")
        page.press(".drawer textarea", "Enter")
        expect(page.locator(".drawer .row.stored").last).to_be_visible()
        check(page)
        page.locator(".drawer-head button").first.click()
        check(page)
        page.keyboard.press("Escape")
        page.locator(".golive").click()
        check(page)
        page.keyboard.press("Escape")
    page = open_page(viewer, "/#/room/999999", **look)
    expect(page.locator(".stage-message")).to_be_visible()
    check(page)


def test_the_language_and_the_theme_are_switched_in_place_and_kept(
    open_page: OpenPage, scene: tuple[Person, Person, int]
) -> None:
    anchor, _, room = scene
    page = enter(open_page(anchor, f"/#/room/{room}", language="zh-TW", theme="dark"))
    say(page, "stays")
    expect(page.locator(".composer textarea")).to_have_attribute("placeholder", "说点什么…")
    page.click(".language")
    expect(page.locator(".composer textarea")).to_have_attribute("placeholder", "Say something…")
    expect(page.locator(".row.mine.stored .content").last).to_have_text("stays")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("[aria-label='Switch to light']")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    page.reload()
    enter(page)
    expect(page.locator(".composer textarea")).to_have_attribute("placeholder", "Say something…")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


def test_a_phone_shows_all_of_it_with_nothing_beside(
    house: House, open_page: OpenPage, scene: tuple[Person, Person, int]
) -> None:
    _, viewer, room = scene
    page = enter(open_page(viewer, f"/#/room/{room}", size={"width": 320, "height": 640}, has_touch=True))
    for locator in (".stage", ".room-about", ".chat-scroll", ".composer textarea"):
        expect(page.locator(locator)).to_be_in_viewport(ratio=0.99)
    page.tap(".like")
    page.goto(house.url + "/")
    expect(page.locator(".card").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_keyboard_is_enough(open_page: OpenPage, scene: tuple[Person, Person, int]) -> None:
    _, viewer, room = scene
    page = open_page(viewer)
    expect(page.locator(".card").first).to_be_visible()
    page.locator("body").press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.locator(f".card[href='#/room/{room}']").focus()
    page.keyboard.press("Enter")
    enter(page)
    page.locator(".chat textarea").focus()
    page.keyboard.type("line one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("line two")
    page.keyboard.press("Enter")
    expect(page.locator(".row.mine .content").last).to_have_text("line one\nline two", use_inner_text=True)
    expect(page.locator(".chat textarea")).to_be_focused()
    page.locator(".row .name").last.focus()
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".row .name").last).to_be_focused()
