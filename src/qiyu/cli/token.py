"""`qiyu token`: login tokens, for trying things out and for load tests."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from qiyu.cli.options import ConfigOption
from qiyu.config import existing_secret, load_settings
from qiyu.protocol.packet import APP_ID
from qiyu.services.tokens import Tokens, parse_user_ids


def token(
    users: Annotated[str, typer.Argument(help="A user id, or a range of them: 10000-10499.")],
    app: Annotated[int, typer.Option("--app", help="The application the users log in to.")] = APP_ID,
    name: Annotated[str, typer.Option("--name", help="The nickname that goes with their messages.")] = "",
    avatar: Annotated[str, typer.Option("--avatar", help="The address of their picture.")] = "",
    config: ConfigOption = None,
) -> None:
    """Print login tokens, one `userId token` line for each user; they open connections for five minutes."""
    settings = load_settings(config)
    try:
        user_ids = parse_user_ids(users)
        tokens = Tokens(existing_secret(settings), settings.auth.token_seconds)
        now_ms = time.time_ns() // 1_000_000
        for user_id in user_ids:
            made = tokens.issue(user_id, app_id=app, nickname=name, avatar=avatar, now_ms=now_ms)
            typer.echo(f"{user_id} {made}")
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from None
