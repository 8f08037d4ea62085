"""What the repositories refuse; `DatabaseUnavailable` and `DatabaseTooNew` are in qiyu/errors.py, for all to handle."""

from __future__ import annotations

from qiyu.errors import QiyuError


class NameTaken(QiyuError):
    """Another user has this name, or one that differs from it in case, width or outer spaces only."""


class NoSuchUser(QiyuError):
    """No user has this id."""
