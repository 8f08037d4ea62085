"""What Alembic runs: on the connection that `qiyu` hands it, or, for the `alembic` command, on one of its own.

alembic -c migrations/alembic.ini revision --autogenerate -m "what changes"
"""

from __future__ import annotations

import trio
from alembic import context
from sqlalchemy import Connection

from qiyu.config import load_settings
from qiyu.storage.database import Database, database_url
from qiyu.storage.migrate import VERSION_TABLE
from qiyu.storage.tables import metadata


def migrate(connection: Connection) -> None:
    sqlite = connection.dialect.name == "sqlite"  # where ALTER TABLE can do little: Alembic makes a new table
    context.configure(
        connection=connection, target_metadata=metadata, render_as_batch=sqlite, version_table=VERSION_TABLE
    )
    with context.begin_transaction():
        context.run_migrations()


async def migrate_alone() -> None:
    settings = load_settings()
    url = database_url(settings.database.url.get_secret_value(), settings.data.dir)
    async with Database.open(url) as database:
        await database.run_long(migrate)


given = context.config.attributes.get("connection")
if given is None:
    trio.run(migrate_alone)
else:
    migrate(given)
