"""`qiyu config`: the settings in force."""

from __future__ import annotations

import typer

from qiyu.cli.options import ConfigOption
from qiyu.config import describe, load_settings


def config(config: ConfigOption = None) -> None:
    """Print the settings in force, and where each came from; secrets are masked."""
    typer.echo(describe(load_settings(config)), nl=False)
