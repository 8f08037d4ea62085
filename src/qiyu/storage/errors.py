"""What the repositories refuse; `DatabaseUnavailable` and `DatabaseTooNew` are in qiyu/errors.py, for all to handle."""

from __future__ import annotations

from qiyu.errors import QiyuError, StartupError


class DatabaseOutdated(StartupError):
    """The tables are those of an older version, and `qiyu db upgrade` was not run."""


class NameTaken(QiyuError):
    """Another user has this name, or one that differs from it in case, width or outer spaces only."""


class NoSuchUser(QiyuError):
    """No user has this id."""
