"""What several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

ConfigOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="QIYU_CONFIG",
        metavar="FILE",
        help="The settings. Without it: config.toml in the working directory, if there is one.",
    ),
]
