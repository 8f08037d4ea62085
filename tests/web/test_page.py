"""The page as it is served; what it does in a browser is in tests/browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qiyu.web import page
from qiyu.web.page import PageFiles, page_files
from web.sites import Site

PAGES = Path(page.__file__).parent / "pages"
MAX_BYTES = 600 * 1024


async def test_the_page_is_asked_for_each_time_and_its_files_are_kept(site: Site) -> None:
    caller = site.caller()
    answer = await caller.get("/")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"
    again = await caller.get("/", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.text) == (304, "")

    addresses = re.findall(r'(?:href|src)="([^"]+)"', answer.text)
    assert len(addresses) > 3
    for address in addresses:
        assert address.startswith(f"assets/{page_files().version}/"), "relative, so that any prefix will do"
        file = await caller.get(f"/{address}")
        assert file.status == 200, address
        assert file.headers["Cache-Control"] == "public, max-age=31536000, immutable"


async def test_nothing_but_the_own_files_runs(site: Site) -> None:
    for path in ("/", f"/assets/{page_files().version}/main.js"):
        policy = (await site.caller().get(path)).headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy
        assert "unsafe" not in policy


async def test_another_version_gets_what_there_is_and_does_not_keep_it(site: Site) -> None:
    answer = await site.caller().get("/assets/0123456789abcdef/main.js")
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache")


@pytest.mark.parametrize("name", ["nothing.js", "../page.py", "%2e%2e/page.py", "index.html/", ""])
async def test_what_is_no_file_of_the_page_is_not_there(site: Site, name: str) -> None:
    assert (await site.caller().get(f"/assets/{page_files().version}/{name}")).refusal == (404, "Not Found")


async def test_who_takes_gzip_gets_it(site: Site) -> None:
    client = site.app.test_client()
    sizes = []
    for encoding in ("gzip, br", "identity"):
        answer = await client.get(f"/assets/{page_files().version}/main.js", headers={"Accept-Encoding": encoding})
        assert answer.headers.get("Content-Encoding") == ("gzip" if "gzip" in encoding else None)
        assert answer.headers["Vary"] == "Accept-Encoding"
        sizes.append(len(await answer.get_data()))
    assert sizes[0] < sizes[1] / 2


def test_the_version_changes_with_any_file(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("{{assets}}/a.js")
    (tmp_path / "a.js").write_text("1")
    before = PageFiles(tmp_path)
    assert f"assets/{before.version}/a.js".encode() == before.find("index.html").content  # type: ignore[union-attr]
    (tmp_path / "a.js").write_text("2")
    (tmp_path / "notes.txt").write_text("not a file of the page")
    after = PageFiles(tmp_path)
    assert after.version != before.version
    assert after.find("notes.txt") is None


def test_it_is_light() -> None:
    assert 0 < page_files().bytes < MAX_BYTES


def test_all_of_it_is_our_own_and_relative() -> None:
    """What came from elsewhere would need its licence, version and checksum in a list, which there is no need for."""
    for path in PAGES.rglob("*.js"):
        source = path.read_text()
        for imported in re.findall(r'(?:from|import\()\s*"([^"]+)"', source):
            if path.name != "qiyu-client.js":  # whose documentation shows how others import it
                assert imported.startswith("./"), f"{path.name}: {imported}"
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert sink not in source, f"{path.name}: {sink}"


def test_all_modules_are_asked_for_at_once() -> None:
    """Each that the first one leads to is named in the page, or a slow network brings them one after the other."""
    imported = re.compile(r'^(?:import|export)[^;]*? from "\./([\w.-]+)"', re.MULTILINE)
    wanted, found = ["main.js"], set()
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted += imported.findall((PAGES / name).read_text("utf-8"))
    page = (PAGES / "index.html").read_text("utf-8")
    assert len(found) > 10
    assert sorted(re.findall(r'rel="modulepreload" href="{{assets}}/(.+?)"', page)) == sorted(found - {"main.js"})


def test_every_text_is_there_in_both_languages() -> None:
    chinese, english = (PAGES / "texts.js").read_text().split("\n  en: {")
    names = [re.findall(r'^    "([^"]+)":', part, re.MULTILINE) for part in (chinese, english)]
    assert names[0] == names[1]
    assert names[0] == sorted(set(names[0]))
    for part in (chinese, english):
        assert not re.search(r':\s*""', part)
    sources = "".join(path.read_text() for path in PAGES.glob("*.js") if path.name != "texts.js")
    used = set(re.findall(r'"([a-z]+(?:\.[a-z0-9]+)*)"', sources))
    made = ("card.", "error.", "event.", "state.")  # their names are put together
    assert not {name for name in names[0] if name not in used and not name.startswith(made)}


@pytest.mark.parametrize("language", ["zh", "en"])
def test_texts_with_parameters_have_them_in_both_languages(language: str) -> None:
    chinese, english = (PAGES / "texts.js").read_text().split("\n  en: {")
    part = chinese if language == "zh" else english
    other = english if language == "zh" else chinese
    for name, text in re.findall(r'^    "([^"]+)": (.+)$', part, re.MULTILINE):
        twin = re.search(rf'^    "{re.escape(name)}": (.+)$', other, re.MULTILINE)
        assert twin is not None
        assert set(re.findall(r"\{(\w+)\}", text)) == set(re.findall(r"\{(\w+)\}", twin[1])), name
