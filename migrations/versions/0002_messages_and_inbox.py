"""Messages, and the inbox of those that their receivers have not acknowledged.

As in 0001, what is there already is passed over: MariaDB commits each statement by itself.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import MEDIUMTEXT

revision = "0002"
down_revision = "0001"

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    make_table(
        "t_im_message",
        sa.Column(
            "msg_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False
        ),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("biz_code", sa.Integer(), nullable=False),
        sa.Column("first_id", sa.BigInteger(), nullable=False),
        sa.Column("second_id", sa.BigInteger(), nullable=False),
        sa.Column("client_msg_id", sa.String(65)),
        sa.Column("data", sa.Text().with_variant(MEDIUMTEXT(), "mysql"), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
    )
    make_index("ix_t_im_message_second_id", "t_im_message", "app_id", "second_id", "first_id", "msg_id")
    make_index(
        "ix_t_im_message_client_msg_id",
        "t_im_message",
        "app_id",
        "user_id",
        "client_msg_id",
        unique=True,
        sqlite_where=sa.text("client_msg_id IS NOT NULL"),
        postgresql_where=sa.text("client_msg_id IS NOT NULL"),
    )

    make_table(
        "t_im_inbox",
        sa.Column("app_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("user_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("msg_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )


def make_table(name: str, *columns: sa.schema.SchemaItem, **options: Any) -> None:
    if not sa.inspect(op.get_bind()).has_table(name):
        op.create_table(name, *columns, **MYSQL, **options)


def make_index(name: str, table: str, *columns: str, **options: Any) -> None:
    if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, columns, **options)
