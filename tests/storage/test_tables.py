"""The types of columns; that migrations/ make these very tables is in tests/storage/test_migrate.py."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Column, MetaData, Table, TypeDecorator, create_engine, select
from sqlalchemy.exc import StatementError

from qiyu.protocol.packet import CLIENT_MSG_ID_CHARS
from qiyu.storage import tables
from qiyu.storage.tables import ExactText, Hex, Text, metadata


def stored(kind: TypeDecorator[Any], value: object) -> tuple[object, object]:
    """What comes back of a value, and what lies in the table."""
    table = Table("t", MetaData(), Column("x", kind))
    with create_engine("sqlite://").begin() as c:
        table.create(c)
        c.execute(table.insert().values(x=value))
        return c.scalar(select(table.c.x)), c.exec_driver_sql("SELECT x FROM t").scalar()


@pytest.mark.parametrize("kind", [Text(5), ExactText(5)])
@pytest.mark.parametrize("value", [None, "", "a", "五个汉字。", "ab   ", "🙂" * 5, "a.", "."])
def test_text_comes_back_as_it_was(kind: TypeDecorator[Any], value: str | None) -> None:
    assert stored(kind, value)[0] == value


@pytest.mark.parametrize("kind", [Text(5), ExactText(5)])
@pytest.mark.parametrize("value", ["123456", "a\0b"])
def test_text_that_another_database_would_not_take(kind: TypeDecorator[Any], value: str) -> None:
    with pytest.raises(StatementError, match="expected at most 5 characters"):
        stored(kind, value)


def test_spaces_at_the_end_of_an_exact_text_do_not_lie_at_the_end() -> None:
    assert stored(ExactText(5), "a  ") == ("a  ", "a  .")


def test_bytes_lie_there_as_text() -> None:
    assert stored(Hex(2), b"\x00\xff") == (b"\x00\xff", "00ff")
    assert stored(Hex(2), None) == (None, None)


@pytest.mark.parametrize("value", [b"", b"1", b"123"])
def test_bytes_of_another_length(value: bytes) -> None:
    with pytest.raises(StatementError, match="expected 2 bytes"):
        stored(Hex(2), value)


def test_a_client_msg_id_that_a_packet_may_have_has_its_place() -> None:
    assert tables.CLIENT_MSG_ID_CHARS == CLIENT_MSG_ID_CHARS


def test_times_are_whole_milliseconds_everywhere() -> None:
    times = [column for table in metadata.tables.values() for column in table.columns if column.name.endswith("_time")]
    assert len(times) > 5
    assert {column.type.python_type for column in times} == {int}


def test_every_index_has_a_name() -> None:
    """A migration can only change what it can name."""
    indexes = [index for table in metadata.tables.values() for index in table.indexes]
    assert indexes
    assert all(str(index.name).startswith(f"ix_{index.table.name}_") for index in indexes if index.table is not None)
