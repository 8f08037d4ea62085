"""Instances that can be fenced; the most people in a room at once, and how often somebody came.

As in 0001, what is there already is passed over: MariaDB commits each statement by itself.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    if not sa.inspect(op.get_bind()).has_table("t_im_instance"):
        op.create_table(
            "t_im_instance",
            sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
            sa.Column("incarnation", sa.BigInteger(), nullable=False),
            sa.Column("address", sa.String(255), nullable=False),
            sa.Column("fenced", sa.SmallInteger(), nullable=False),
            sa.Column("start_time", sa.BigInteger(), nullable=False),
            sa.Column("beats", sa.BigInteger(), nullable=False),
            **MYSQL,
        )
    for table in ("t_living_room", "t_living_room_record"):
        for name in ("peak_num", "visit_num"):
            add_count(table, name)


def add_count(table: str, name: str) -> None:
    if name not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
