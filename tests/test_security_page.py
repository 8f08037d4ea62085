"""docs/security.md names settings as answers: they are there, and enforced unless the page says that they are not."""

from __future__ import annotations

import re

from documents import ROOT
from qiyu.config import Settings

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`\[([a-z]+)\] ([a-z_]+)`")


def test_every_setting_that_it_names_is_one_and_counts() -> None:
    settings = Settings()
    named = [(line, *match) for line in PAGE.splitlines() for match in NAMED.findall(line)]
    assert len(named) > 20
    for line, section, key in named:
        field = type(getattr(settings, section)).model_fields[key]
        assert ("Not enforced yet" in str(field.description)) == ("*Open*" in line), key


def test_every_threat_has_its_answer() -> None:
    rows = [row for row in PAGE.splitlines() if row.startswith("| ") and "---" not in row]
    assert all(len(row.strip("| ").split(" | ")) == 2 for row in rows)
