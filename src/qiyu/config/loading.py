"""Where the settings come from: the environment over the file over the defaults, with every mistake told at once."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from qiyu.config.printing import MASK, printable, toml
from qiyu.config.settings import Settings
from qiyu.config.types import Expected, OneOrMore
from qiyu.errors import ConfigError

CONFIG_FILE: Final = "config.toml"
ENV_PREFIX: Final = "QIYU_"

_SHOWN_CHARS: Final = 80  # of a wrong value, in a message


def _fields_by_name() -> dict[str, FieldInfo]:
    sections = {name: info.annotation for name, info in Settings.model_fields.items()}
    return {
        f"{section}.{key}": info
        for section, model in sections.items()
        if model is not None
        for key, info in model.model_fields.items()
    }


_FIELDS: Final = _fields_by_name()
_SECTIONS: Final = tuple(Settings.model_fields)


class _Found(NamedTuple):
    """A setting as it was found, before anything is known about its value."""

    value: object
    origin: str


def load_settings(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings: the environment over the file over the defaults.

    Without a `path` it is ./config.toml, if there is one. A setting's variable is named like
    QIYU_TCP__PORT; names in QIYU_ without a double underscore belong to others and are left alone.

    Raises ConfigError, which lists every problem found, one a line.
    """
    if path is None and Path(CONFIG_FILE).exists():
        path = Path(CONFIG_FILE)
    problems: list[str] = []
    environ = os.environ if environ is None else environ
    found = {} if path is None else _from_file(path, problems)
    found |= _from_environment(environ, problems)

    sections: dict[str, dict[str, object]] = {}
    for name, (value, _) in found.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = value
    try:
        settings = Settings(**sections)  # type: ignore[arg-type]  # pydantic makes the sections
    except ValidationError as error:
        problems += _problems_of(error, found)
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems))) from None
    return settings.came_from({name: each.origin for name, each in found.items()}, _misspelt(environ))


def _from_file(path: Path, problems: list[str]) -> dict[str, _Found]:
    try:
        # utf-8-sig: some editors put a byte order mark in front, which TOML does not know
        tables = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (at byte {error.start})") from None
    except ValueError as error:  # TOMLDecodeError, which names the line; or a number of thousands of digits
        raise ConfigError(f"{path}: is not TOML: {error}") from None

    found: dict[str, _Found] = {}
    for section, table in tables.items():
        if section not in _SECTIONS:
            problems.append(_unknown(section, str(path)))
        elif not isinstance(table, dict):
            problems.append(f"{section} (from {path}): expected a section, [{section}], with settings below it")
        else:
            for key, value in table.items():
                name = f"{section}.{key}"
                if name in _FIELDS:
                    found[name] = _Found(value, str(path))
                else:
                    problems.append(_unknown(name, str(path)))
    return found


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for variable in sorted(environ):
        prefix, rest = variable[: len(ENV_PREFIX)], variable[len(ENV_PREFIX) :]
        if prefix.upper() != ENV_PREFIX or "__" not in rest:
            continue
        name = rest.lower().replace("__", ".")
        if name not in _FIELDS:
            problems.append(_unknown(name, variable))
        elif name in found:
            problems.append(f"{name} is set twice: by {found[name].origin} and by {variable}")
        else:
            found[name] = _Found(_from_text(environ[variable], _FIELDS[name]), variable)
    return found


def _misspelt(environ: Mapping[str, str]) -> Iterable[str]:
    """Variables of ours in all but one underscore. QIYU_HOME may be somebody else's; QIYU_TCP_PORT hardly is."""
    spelt = {name.replace(".", "_"): name for name in _FIELDS}
    for variable in sorted(environ):
        rest = variable[len(ENV_PREFIX) :].lower()
        if variable.upper().startswith(ENV_PREFIX) and "__" not in rest and rest.split("_")[0] in _SECTIONS:
            for near in get_close_matches(rest, spelt, n=1, cutoff=0.8):
                meant = ENV_PREFIX + spelt[near].replace(".", "__").upper()
                yield f"the variable {printable(variable)} is not used; did you mean {meant}, with two underscores?"


_WHOLE_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
_YES_NO: Final = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


def _from_text(text: str, info: FieldInfo) -> object:
    """What a variable's text means for this setting; the text itself where it means nothing."""
    kind = info.annotation
    if kind is int:
        return int(text) if _WHOLE_NUMBER.fullmatch(text) else text
    if kind is float:
        return float(text) if _NUMBER.fullmatch(text) else text
    if kind is bool:
        return _YES_NO.get(text.lower(), text)
    if kind == tuple[str, ...]:
        return _list_from_text(text)
    if kind == OneOrMore and ("," in text or text.lstrip().startswith("[")):
        return _list_from_text(text)
    return text


def _list_from_text(text: str) -> object:
    if not text.lstrip().startswith("["):
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _unknown(name: str, origin: str) -> str:
    hint = _near(name)
    what = "setting" if any("." in each for each in (name, *hint)) else "section"
    line = f"{name} (from {origin}): unknown {what}" + (f"; did you mean {' or '.join(hint)}?" if hint else "")
    return printable(line)


def _near(name: str) -> list[str]:
    """The settings that a wrong name may stand for: its key in the right section, or the nearest spelling."""
    name = name.lower()
    section, _, key = name.rpartition(".")
    moved = [known for known in _FIELDS if known.rpartition(".")[2] == key]
    if "." not in name:  # a section, or a setting that stands above the first section
        return get_close_matches(name, _SECTIONS, n=1, cutoff=0.6) or moved
    if moved and section not in _SECTIONS:
        near_section = get_close_matches(section, _SECTIONS, n=1, cutoff=0.5)
        return [known for known in moved if known.split(".")[0] in near_section] or moved
    return moved or get_close_matches(name, _FIELDS, n=1, cutoff=0.6)


def _problems_of(error: ValidationError, found: Mapping[str, _Found]) -> Iterable[str]:
    for detail in error.errors(include_url=False, include_input=False):
        section, *keys = (str(part) for part in detail["loc"])
        if keys:
            name = f"{section}.{keys[0]}"
            yield f"{_as_found(name, found)}: expected {_expected(_FIELDS[name])}"
        else:  # a check across several settings of the section
            names = [f"{section}.{key}" for key in detail["ctx"]["keys"]]
            shown = " and ".join(_as_found(name, found) for name in names)
            yield f"{shown}: expected {detail['ctx']['expected']}"


def _expected(info: FieldInfo) -> str:
    return next(each.words for each in info.metadata if isinstance(each, Expected))


def _as_found(name: str, found: Mapping[str, _Found]) -> str:
    if name not in found:
        return f"{name} = {toml(_FIELDS[name].default)} (the default)"
    value, origin = found[name]
    shown = MASK if _FIELDS[name].annotation is SecretStr else _shown(value)
    return f"{name} = {shown} (from {origin})"


def _shown(value: object) -> str:
    text = printable(toml(value) if isinstance(value, bool | str) else repr(value))
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
