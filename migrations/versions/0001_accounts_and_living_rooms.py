"""Accounts and living rooms.

MariaDB commits each statement of it by itself. So what is there already is passed over, and a process that was killed
half-way leaves nothing that the next one could not finish.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

FIRST_USER_IS_10000 = {
    "sqlite": "INSERT INTO sqlite_sequence (name, seq) VALUES ('t_user', 9999)",
    "postgresql": "ALTER SEQUENCE t_user_id_seq RESTART WITH 10000",
    "mysql": "ALTER TABLE t_user AUTO_INCREMENT = 10000",
}
MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    id_ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

    make_table(
        "t_user",
        sa.Column("id", id_, primary_key=True),
        sa.Column("name", sa.String(35), nullable=False),
        sa.Column("name_key", sa.String(630), nullable=False),
        sa.Column("nick_name", sa.String(35), nullable=False),
        sa.Column("avatar", sa.String(255), nullable=False),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sqlite_autoincrement=True,
    )
    make_index("ix_t_user_name_key", "t_user", "name_key", unique=True)
    op.execute(FIRST_USER_IS_10000[op.get_bind().dialect.name])

    make_table(
        "t_user_tag",
        sa.Column("user_id", id_, primary_key=True, autoincrement=False),
        sa.Column("tag", sa.String(32), primary_key=True),
        sa.ForeignKeyConstraint(["user_id"], ["t_user.id"], name="fk_t_user_tag_user_id", ondelete="CASCADE"),
    )

    make_table(
        "t_user_session",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("user_id", id_, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["t_user.id"], name="fk_t_user_session_user_id", ondelete="CASCADE"),
    )
    make_index("ix_t_user_session_user_id", "t_user_session", "user_id")
    make_index("ix_t_user_session_expire_time", "t_user_session", "expire_time")

    make_table(
        "t_living_room",
        sa.Column("id", id_, primary_key=True),
        *room_columns(),
        sqlite_autoincrement=True,
    )
    make_index("ix_t_living_room_anchor_id", "t_living_room", "anchor_id", unique=True)
    make_index("ix_t_living_room_type", "t_living_room", "type", "start_time", "id")

    make_table(
        "t_living_room_record",
        sa.Column("id", id_, primary_key=True, autoincrement=False),
        *room_columns(),
        sa.Column("end_time", sa.BigInteger(), nullable=False),
    )
    make_index("ix_t_living_room_record_anchor_id", "t_living_room_record", "anchor_id", "end_time")


def room_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("anchor_id", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("room_name", sa.String(60), nullable=False),
        sa.Column("covert_img", sa.String(255), nullable=False),
        sa.Column("watch_num", sa.BigInteger(), nullable=False),
        sa.Column("good_num", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
    ]


def make_table(name: str, *columns: sa.schema.SchemaItem, **options: Any) -> None:
    if not sa.inspect(op.get_bind()).has_table(name):
        op.create_table(name, *columns, **MYSQL, **options)


def make_index(name: str, table: str, *columns: str, unique: bool = False) -> None:
    if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, columns, unique=unique)
