"""Homes of rooms among several instances.

As in 0001, what is there already is passed over: MariaDB commits each statement by itself.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    if not sa.inspect(op.get_bind()).has_table("t_im_room_home"):
        op.create_table(
            "t_im_room_home",
            sa.Column("app_id", sa.BigInteger(), primary_key=True, autoincrement=False),
            sa.Column("room_id", sa.BigInteger(), primary_key=True, autoincrement=False),
            sa.Column("number", sa.Integer(), nullable=False),
            sa.Column("incarnation", sa.BigInteger(), nullable=False),
            sa.Column("term", sa.BigInteger(), nullable=False),
            **MYSQL,
        )
