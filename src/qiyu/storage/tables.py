"""The tables. migrations/ makes them; a test compares the two.

`t_living_room` and `t_living_room_record` have the names and columns of the tutorial; the other tables are ours.

A message is kept once, in `t_im_message`; `t_im_inbox` says which direct ones their receivers have not acknowledged.

Times are whole milliseconds since 1970, in columns called `*_time`: the same number on every database. DATETIME is not:
SQLite has none, MariaDB's knows no time zone and cuts to seconds, and each driver reads them back its own way.

Text is any Unicode but U+0000, which PostgreSQL cannot keep, and is compared by its code points (on MariaDB:
utf8mb4_bin).

Ids are never given twice, also after a restart and after rows have gone: AUTOINCREMENT on SQLite, a sequence on
PostgreSQL, AUTO_INCREMENT on MariaDB from 10.2.4 and MySQL from 8.0, which keep the counter on disk.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    TEXT,
    BigInteger,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    TypeDecorator,
    text,
)
from sqlalchemy.dialects.mysql import MEDIUMTEXT

FIRST_USER_ID: Final = 10_000  # the migration sets it; the protocol knows no smaller one
NAME_CHARS: Final = 35
NICK_NAME_CHARS: Final = 35
AVATAR_CHARS: Final = 255
ROOM_NAME_CHARS: Final = 60
COVERT_IMG_CHARS: Final = 255
TAG_CHARS: Final = 32
TOKEN_HASH_BYTES: Final = 32
ADDRESS_CHARS: Final = 255
INSTANCES: Final = 1024  # as many as a msgId can tell apart
CLIENT_MSG_ID_CHARS: Final = 64

CLOSED: Final = 0
OPEN: Final = 1
"""The values of `status`."""

# NFKC makes at most 18 characters of one (U+FDFA).
_NAME_KEY_CHARS: Final = 18 * NAME_CHARS


class Text(TypeDecorator[str]):
    """VARCHAR whose limits hold on SQLite too, which has none of its own: what passes there passes everywhere."""

    impl = String
    cache_ok = True

    def __init__(self, chars: int) -> None:
        super().__init__(chars)
        self.chars = chars

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        if value is not None and (len(value) > self.chars or "\0" in value):
            raise ValueError(f"expected at most {self.chars} characters, U+0000 not among them; got {len(value)}")
        return value


class ExactText(Text):
    """`Text` in which spaces at the end count: MariaDB's utf8mb4_bin passes over them when it compares."""

    impl = String
    cache_ok = True
    _END: Final = "."

    def __init__(self, chars: int) -> None:
        super().__init__(chars + len(self._END))
        self.chars = chars

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        value = super().process_bind_param(value, dialect)
        return None if value is None else value + self._END

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else value.removesuffix(self._END)


class Hex(TypeDecorator[bytes]):
    """Bytes as hexadecimal text, which every driver reads and writes alike."""

    impl = String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(2 * length)
        self.length = length

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        if value is not None and len(value) != self.length:
            raise ValueError(f"expected {self.length} bytes, got {len(value)}")
        return None if value is None else value.hex()

    def process_result_value(self, value: str | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002
        return None if value is None else bytes.fromhex(value)


_Id = BigInteger().with_variant(Integer(), "sqlite")  # AUTOINCREMENT is for INTEGER alone
_MYSQL: Final[dict[str, Any]] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

t_user = Table(
    "t_user",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text(NAME_CHARS), nullable=False),
    Column("name_key", Text(_NAME_KEY_CHARS), nullable=False),
    Column("nick_name", Text(NICK_NAME_CHARS), nullable=False),
    Column("avatar", Text(AVATAR_CHARS), nullable=False),
    Column("password_hash", Text(255), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Index("ix_t_user_name_key", "name_key", unique=True),
    sqlite_autoincrement=True,
    **_MYSQL,
)

t_user_tag = Table(
    "t_user_tag",
    metadata,
    Column("user_id", _Id, ForeignKey("t_user.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("tag", Text(TAG_CHARS), primary_key=True),
    **_MYSQL,
)

t_user_session = Table(
    "t_user_session",
    metadata,
    Column("token_hash", Hex(TOKEN_HASH_BYTES), primary_key=True),
    Column("user_id", _Id, ForeignKey("t_user.id", ondelete="CASCADE"), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("expire_time", BigInteger, nullable=False),
    Index("ix_t_user_session_user_id", "user_id"),
    Index("ix_t_user_session_expire_time", "expire_time"),
    **_MYSQL,
)

# Open rooms only, and one for each anchor. `watch_num` is how many are there now, `peak_num` the most that ever were,
# and `visit_num` how often somebody came.
t_living_room = Table(
    "t_living_room",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("anchor_id", BigInteger, nullable=False),
    Column("type", SmallInteger, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("room_name", Text(ROOM_NAME_CHARS), nullable=False),
    Column("covert_img", Text(COVERT_IMG_CHARS), nullable=False),
    Column("watch_num", BigInteger, nullable=False),
    Column("good_num", BigInteger, nullable=False),
    Column("peak_num", BigInteger, nullable=False, server_default="0"),
    Column("visit_num", BigInteger, nullable=False, server_default="0"),
    Column("start_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Index("ix_t_living_room_anchor_id", "anchor_id", unique=True),
    Index("ix_t_living_room_type", "type", "start_time", "id"),
    sqlite_autoincrement=True,
    **_MYSQL,
)

# Where a room goes when it is closed, with its id.
t_living_room_record = Table(
    "t_living_room_record",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("anchor_id", BigInteger, nullable=False),
    Column("type", SmallInteger, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("room_name", Text(ROOM_NAME_CHARS), nullable=False),
    Column("covert_img", Text(COVERT_IMG_CHARS), nullable=False),
    Column("watch_num", BigInteger, nullable=False),
    Column("good_num", BigInteger, nullable=False),
    Column("peak_num", BigInteger, nullable=False, server_default="0"),
    Column("visit_num", BigInteger, nullable=False, server_default="0"),
    Column("start_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Column("end_time", BigInteger, nullable=False),
    Index("ix_t_living_room_record_anchor_id", "anchor_id", "end_time"),
    **_MYSQL,
)

# Whom the anchor of an open room has muted or removed, and until when; update_time is for the other instances.
t_living_restriction = Table(
    "t_living_restriction",
    metadata,
    Column("room_id", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("muted_until", BigInteger, nullable=False),
    Column("removed_until", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Index("ix_t_living_restriction_update_time", "update_time"),
    sqlite_with_rowid=False,
    **_MYSQL,
)

# What was said, by msgId. (first_id, second_id) is where: (room id, 0), or both users, the smaller id first. User ids
# begin at 10,000, so no room looks like two users, and one index serves the history of both.
t_im_message = Table(
    "t_im_message",
    metadata,
    Column("msg_id", _Id, primary_key=True, autoincrement=False),
    Column("app_id", BigInteger, nullable=False),
    Column("user_id", BigInteger, nullable=False),
    Column("biz_code", Integer, nullable=False),
    Column("first_id", BigInteger, nullable=False),
    Column("second_id", BigInteger, nullable=False),
    Column("client_msg_id", ExactText(CLIENT_MSG_ID_CHARS)),
    Column("data", TEXT().with_variant(MEDIUMTEXT(), "mysql"), nullable=False),  # JSON, in which U+0000 is escaped
    Column("create_time", BigInteger, nullable=False),
    Index("ix_t_im_message_second_id", "app_id", "second_id", "first_id", "msg_id"),
    Index(
        "ix_t_im_message_client_msg_id",
        "app_id",
        "user_id",
        "client_msg_id",
        unique=True,
        sqlite_where=text("client_msg_id IS NOT NULL"),  # the others need not be in it; MariaDB cannot leave them out
        postgresql_where=text("client_msg_id IS NOT NULL"),
    ),
    **_MYSQL,
)

# The direct messages that user_id, the receiver, has not acknowledged.
t_im_inbox = Table(
    "t_im_inbox",
    metadata,
    Column("app_id", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("msg_id", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
    **_MYSQL,
)

# Who writes: see instances.py. `beats` is only there to be written.
t_im_instance = Table(
    "t_im_instance",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("incarnation", BigInteger, nullable=False),
    Column("address", Text(ADDRESS_CHARS), nullable=False),
    Column("fenced", SmallInteger, nullable=False),
    Column("start_time", BigInteger, nullable=False),
    Column("beats", BigInteger, nullable=False),
    **_MYSQL,
)

# Which instance a room is at home on: see homes.py. The number is -1 where nobody has it.
t_im_room_home = Table(
    "t_im_room_home",
    metadata,
    Column("app_id", BigInteger, primary_key=True, autoincrement=False),
    Column("room_id", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, nullable=False),
    Column("incarnation", BigInteger, nullable=False),
    Column("term", BigInteger, nullable=False),
    **_MYSQL,
)
