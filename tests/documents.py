"""The tables in docs/, for tests that hold them against the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]


def table(document: str, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading (`## Errors`) of a document in docs/, without its first two lines."""
    lines = (ROOT / "docs" / document).read_text(encoding="utf-8").splitlines()
    begin = next(number for number in range(lines.index(heading), len(lines)) if lines[number].startswith("|"))
    rows = []
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert rows
    return rows


def blocks(document: str, language: str) -> list[str]:
    """The blocks of code in that language, of a document in the root."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
