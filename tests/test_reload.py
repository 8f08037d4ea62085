from __future__ import annotations

from qiyu.config import Settings
from qiyu.reload import RELOADED, changes


def settings(**sections: dict[str, object]) -> Settings:
    return Settings(**sections)  # type: ignore[arg-type]  # pydantic makes the sections


def test_what_has_changed() -> None:
    old = settings(limits={"content_chars": 5}, auth={"secret": "x" * 16})
    new = settings(limits={"content_chars": 6}, auth={"secret": "y" * 16}, tcp={"port": 1})
    assert changes(old, old) == []
    assert changes(old, new) == ["tcp.port", "auth.secret", "limits.content_chars"]


def test_every_limit_can_change_while_the_server_runs() -> None:
    """How each counts then, tests/flow/test_reload.py sees."""
    names = {f"{section}.{key}" for section, values in Settings() for key, _ in values}
    assert set(RELOADED) <= names
    assert {name for name in names if name.startswith("limits.")} <= set(RELOADED)
    assert {"ws.allowed_origins", "http.cors_origins", "log.level"} <= set(RELOADED)
