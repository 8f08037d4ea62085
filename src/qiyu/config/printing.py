"""Settings on paper: as TOML, with secrets and passwords masked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from qiyu.config.settings import Settings

MASK: Final = "********"


def describe(settings: Settings) -> str:
    """The settings in force as TOML, with secrets and passwords masked, and where each was read from."""
    lines: list[str] = []
    for section in Settings.model_fields:
        lines += ["", f"[{section}]"]
        for key, value in getattr(settings, section):
            shown = _masked_url(value.get_secret_value()) if key == "url" else value
            origin = settings.origin(f"{section}.{key}")
            lines.append(f"{key} = {toml(shown)}" + (f"  # from {printable(origin)}" if origin else ""))
    return "\n".join(lines[1:]) + "\n"


def toml(value: object) -> str:
    if isinstance(value, SecretStr):
        return toml(value.get_secret_value() and MASK)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str | Path):
        # The escapes of JSON are among those of a TOML basic string, which wants DEL escaped as well.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)


# Greedy, up to the last @: a user or a password may hold one unescaped. To mask too much does no harm.
_PASSWORD: Final = re.compile(r"://([^:]*):.*@")
_QUERY_VALUE: Final = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token|key)[^=&]*=)[^&]*", re.IGNORECASE)


def _masked_url(url: str) -> str:
    return _QUERY_VALUE.sub(r"\1***", _PASSWORD.sub(r"://\1:***@", url))


def printable(text: str) -> str:
    """The text on one line, and safe for any terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
