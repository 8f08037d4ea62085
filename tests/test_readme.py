"""The Chinese README says what the English one does: the same headings, the same commands, the same pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGLISH = (ROOT / "README.md").read_text()
CHINESE = (ROOT / "README.zh-CN.md").read_text()


def test_the_headings_are_as_many_and_as_deep() -> None:
    english, chinese = (re.findall(r"^#+", _prose(text), re.MULTILINE) for text in (ENGLISH, CHINESE))
    assert english == chinese


def test_programs_and_what_they_print_are_the_same() -> None:
    assert _blocks(ENGLISH) == _blocks(CHINESE)


def test_the_commands_are_the_same() -> None:
    for pattern in (r"^\| `(qiyu [^`]+)`", r"`(make [^`]+)`", r"`(\[\w+\] \w+)`"):
        english, chinese = (set(re.findall(pattern, _prose(text), re.MULTILINE)) for text in (ENGLISH, CHINESE))
        assert english == chinese


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["English", "Chinese"])
def test_every_link_leads_somewhere(text: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert (ROOT / target).exists(), target


def test_both_lead_to_the_same_pages() -> None:
    english, chinese = (
        {
            target
            for target in re.findall(r"\]\(([^)]+)\)", text)
            if not target.startswith(("README", "docs/screenshots"))
        }
        for text in (ENGLISH, CHINESE)
    )
    assert english == chinese


def _blocks(text: str) -> list[str]:
    return re.findall(r"```.*?```", text, re.DOTALL)


def _prose(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)
