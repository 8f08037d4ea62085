"""Whom anchors have muted in their rooms, or removed from them.

As in 0001, what is there already is passed over: MariaDB commits each statement by itself.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TABLE = "t_living_restriction"
INDEX = "ix_t_living_restriction_update_time"
MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    inspector = sa.inspect(op.get_bind())
    if not inspector.has_table(TABLE):
        op.create_table(
            TABLE,
            sa.Column("room_id", sa.BigInteger(), primary_key=True, autoincrement=False),
            sa.Column("user_id", sa.BigInteger(), primary_key=True, autoincrement=False),
            sa.Column("muted_until", sa.BigInteger(), nullable=False),
            sa.Column("removed_until", sa.BigInteger(), nullable=False),
            sa.Column("update_time", sa.BigInteger(), nullable=False),
            sqlite_with_rowid=False,
            **MYSQL,
        )
    if INDEX not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(TABLE)}:
        op.create_index(INDEX, TABLE, ("update_time",))
