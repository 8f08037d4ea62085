"""`qiyu config`: the settings in force, a file to begin with, and whether a file will do."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Final

import typer

from qiyu.cli.options import ConfigOption
from qiyu.config import CONFIG_FILE, describe, load_settings, require_safe_secret
from qiyu.drivers.tls import Certificate
from qiyu.errors import ConfigError, StartupError
from qiyu.protocol import accelerator

HERE: Final = Path(CONFIG_FILE)

config = typer.Typer(
    name="config",
    help="Print the settings in force, and where each came from; secrets are masked.",
    add_completion=False,
    invoke_without_command=True,
)


@config.callback()
def show(ctx: typer.Context, config: ConfigOption = None) -> None:
    """Print the settings in force, and where each came from; secrets are masked."""
    if ctx.invoked_subcommand is None:
        settings = load_settings(config)
        typer.echo(describe(settings), nl=False)
        typer.echo(f"\n# the accelerator (docs/performance.md): {accelerator.STATE}")
        _warn(settings.warnings)


@config.command()
def check(config: ConfigOption = None) -> None:
    """Say whether a server would start with the settings; every mistake is named, and the exit status is 2."""
    settings = load_settings(config)
    require_safe_secret(settings)
    if settings.tls.certificate:
        try:
            Certificate(Path(settings.tls.certificate), Path(settings.tls.key), ())
        except StartupError as exc:
            raise ConfigError(str(exc)) from None
    _warn(settings.warnings)
    typer.echo(f"the settings are fine ({', '.join(settings.files) or 'no file'})")


@config.command()
def init(
    file: Annotated[Path, typer.Argument(help="The file to write, if it is not there.")] = HERE,
) -> None:
    """Write a file with every setting, its default and what it is for, to begin with."""
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(_reference().read_text("utf-8"))
    except FileExistsError:
        raise ConfigError(f"{file}: is there already, and is left as it is") from None
    except OSError as exc:
        raise ConfigError(f"{file}: cannot be written: {exc.strerror or exc}") from None
    typer.echo(f"wrote {file}")


def _reference() -> Path:
    """config.toml as it comes with qiyu: in the package where that is installed, in the root of a checkout."""
    package = Path(str(resources.files("qiyu")))
    for path in (package / CONFIG_FILE, package.parent.parent / CONFIG_FILE):
        if path.is_file():
            return path
    raise FileNotFoundError(f"no {CONFIG_FILE} in {package} nor beside it: this installation is not complete")


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        typer.echo(f"qiyu: {warning}", err=True)
