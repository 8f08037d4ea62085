from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from qiyu.errors import ConfigError
from qiyu.storage import urls
from qiyu.storage.urls import database_url


def test_without_a_url_it_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    assert database_url("", Path("data")) == "sqlite:///data/qiyu.db"
    assert make_url(database_url("", tmp_path / "50% #1? é")).database == str(tmp_path / "50% #1? é" / "qiyu.db")


@pytest.mark.parametrize(
    ("configured", "opened"),
    [
        ("sqlite:///a/b.db", "sqlite:///a/b.db"),
        ("sqlite+aiosqlite:///a/b.db", "sqlite:///a/b.db"),
        ("postgres://u:p@h/n", "postgresql+psycopg://u:p@h/n"),
        ("postgresql://u:p%40@h:5433/n?sslmode=require", "postgresql+psycopg://u:p%40@h:5433/n?sslmode=require"),
        ("postgresql+asyncpg://h/n?ssl=require", "postgresql+psycopg://h/n?sslmode=require"),
        ("postgresql+psycopg://h/n", "postgresql+psycopg://h/n"),
        ("mysql://u@h/n", "mysql+pymysql://u@h/n?charset=utf8mb4"),
        ("mysql+aiomysql://u@h/n", "mysql+pymysql://u@h/n?charset=utf8mb4"),
        ("mariadb://u@h/n?charset=latin1", "mysql+pymysql://u@h/n?charset=utf8mb4"),
    ],
)
def test_each_database_has_its_driver(configured: str, opened: str) -> None:
    assert database_url(configured, Path("data")) == opened


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ("oracle://u:secret@h/n", "oracle:// is no database that qiyu knows; expected sqlite:///file, postgresql://"),
        ("postgresql://u:secret@h:port/n", "cannot be read as a URL; .*In a password, write @ as %40"),
        ("postgresql://u:secret@h/n?ssl=perhaps", "sslmode=perhaps: expected one of disable, allow"),
        ("postgresql://u:secret@h", "expected the name of a database at the end"),
        ("sqlite://", "expected a file"),
        ("sqlite:///:memory:", "expected a file"),
    ],
)
def test_what_cannot_be_opened_is_named_without_its_password(configured: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        database_url(configured, Path("data"))
    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_an_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"pip install 'qiyu\[postgresql\]'"):
        database_url("postgresql://h/n", Path("data"))
    with pytest.raises(ConfigError, match=r"pip install 'qiyu\[mysql\]'"):
        database_url("mariadb://h/n", Path("data"))
    assert database_url("", Path("data"))
