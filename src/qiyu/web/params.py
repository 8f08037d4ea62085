"""The parameters of a call: form fields, query or JSON alike, and every wrong one named at once.

Where a parameter is given in several places the body goes before the query. A number may be written as JSON's 7 or as
"7"; JSON's null is the same as leaving it out; parameters that a call does not know are ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, TypeAlias, TypeVar
from urllib.parse import parse_qsl

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from quart import Request
from werkzeug.datastructures import MultiDict

from qiyu.accounts import credentials
from qiyu.errors import CallRefused
from qiyu.protocol.packet import MAX_ID, MIN_ID

MAX_USER_IDS: Final = 1000
MAX_SECONDS: Final = 366 * 86_400
MAX_PAGE: Final = 1_000_000
MAX_FIELDS: Final = MAX_USER_IDS + 100
"""Of a query or a form: they are counted before they are read, which costs a microsecond each."""
MAX_MSG_ID: Final = 2**63 - 1
_SHOWN_CHARS: Final = 40
_WHOLE_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")
_MSG_ID: Final = re.compile(r"[0-9]{1,19}")
_PLAIN: Final = re.compile(r"[A-Za-z0-9.,_-]+")
_FORM: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"

_decode_json = msgspec.json.Decoder().decode
_decode_ids = msgspec.json.Decoder(list[int | str]).decode  # its errors are ValueErrors


class Expected(NamedTuple):
    """What a parameter accepts, in words that follow `expected`; a secret's value is never repeated."""

    words: str
    secret: bool = False


class Params(BaseModel):
    """What one call takes."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, hide_input_in_errors=True)

    one_of: ClassVar[tuple[str, ...]] = ()
    """Parameters, by their names in a request, of which exactly one must be given; each has a default."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        if cls.one_of:
            described = handler.resolve_ref_schema(schema)
            described["oneOf"] = [{"required": [name]} for name in cls.one_of]
            for name in cls.one_of:
                del described["properties"][name]["default"]
        return schema


class NoParams(Params):
    """A call that takes nothing."""


P = TypeVar("P", bound=Params)


def _whole_number(value: object) -> object:
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)  # to JSON, 7.0 is 7
    if type(value) is int:
        return value
    raise ValueError


def _msg_id(value: object) -> object:
    """19 digits are more than a JSON number holds in JavaScript: so, beyond what it counts exactly, text alone."""
    if isinstance(value, str):
        if value and not (_MSG_ID.fullmatch(value) and int(value) <= MAX_MSG_ID):
            raise ValueError
        return value
    number = _whole_number(value)
    if not (isinstance(number, int) and 0 <= number <= MAX_ID):
        raise ValueError
    return str(number)


def _user_ids(value: object) -> object:
    """A JSON list, a text with commas between, or a field given several times."""
    if isinstance(value, str):
        value = _decode_ids(value) if value.startswith("[") else value.split(",")
    if not isinstance(value, list):
        value = [value]
    return tuple(dict.fromkeys(_whole_number(each) for each in value))


def _optional(check: Callable[[str], str]) -> AfterValidator:
    """As `check`, but a form's empty field is one that was left out."""
    return AfterValidator(lambda text: text and check(text))


def _chars(least: int, most: int) -> Any:
    """For the description alone: it is the check that counts, once the text is normalized."""
    return Field(json_schema_extra={"minLength": least, "maxLength": most})


RoomType: TypeAlias = Annotated[Literal[1, 2], BeforeValidator(_whole_number), Expected("1 (normal) or 2 (PK)")]
RoomId: TypeAlias = Annotated[
    int,
    Field(ge=1, le=MAX_ID),
    BeforeValidator(_whole_number),
    Expected(f"a whole number from 1 to {MAX_ID}"),
]
UserId: TypeAlias = Annotated[
    int,
    Field(ge=MIN_ID, le=MAX_ID),
    BeforeValidator(_whole_number),
    Expected(f"a whole number from {MIN_ID} to {MAX_ID}"),
]
MsgId: TypeAlias = Annotated[
    str,
    BeforeValidator(_msg_id),
    Field(json_schema_extra={"pattern": "^[0-9]{0,19}$"}),
    Expected(f"a msgId: a whole number from 0 to {MAX_MSG_ID}, as text"),
]
Page: TypeAlias = Annotated[
    int,
    Field(ge=1, le=MAX_PAGE),
    BeforeValidator(_whole_number),
    Expected(f"a whole number from 1 to {MAX_PAGE}"),
]
PageSize: TypeAlias = Annotated[
    int, Field(ge=1, le=100), BeforeValidator(_whole_number), Expected("a whole number from 1 to 100")
]
Seconds: TypeAlias = Annotated[
    int,
    Field(ge=0, le=MAX_SECONDS),
    BeforeValidator(_whole_number),
    Expected(f"a whole number from 0 to {MAX_SECONDS}"),
]
UserIds: TypeAlias = Annotated[
    tuple[Annotated[int, Field(ge=MIN_ID, le=MAX_ID)], ...],
    Field(min_length=1, max_length=MAX_USER_IDS),
    BeforeValidator(_user_ids),
    Expected(f"1 to {MAX_USER_IDS} user ids, each from {MIN_ID} to {MAX_ID}, as a list or with commas between"),
]
Name: TypeAlias = Annotated[
    str, AfterValidator(credentials.account_name), _chars(*credentials.NAME_CHARS), Expected(credentials.NAME_WORDS)
]
NewPassword: TypeAlias = Annotated[
    str,
    AfterValidator(credentials.password),
    _chars(*credentials.PASSWORD_CHARS),
    Expected(credentials.PASSWORD_WORDS, secret=True),
]
NickName: TypeAlias = Annotated[
    str,
    _optional(credentials.nick_name),
    _chars(0, credentials.NICK_NAME_CHARS[1]),
    Expected(credentials.NICK_NAME_WORDS),
]
RoomName: TypeAlias = Annotated[
    str,
    _optional(credentials.room_name),
    _chars(0, credentials.ROOM_NAME_CHARS[1]),
    Expected(credentials.ROOM_NAME_WORDS),
]
Image: TypeAlias = Annotated[
    str, AfterValidator(credentials.image), _chars(0, credentials.IMAGE_CHARS), Expected(credentials.IMAGE_WORDS)
]
AnyText: TypeAlias = Annotated[str, Field(max_length=1024), Expected("a text")]
Secret: TypeAlias = Annotated[str, Field(max_length=1024), Expected("a text", secret=True)]


async def read_params(request: Request, kind: type[P]) -> P:
    """The parameters of this request; raises `CallRefused` 400 that names each that is wrong."""
    _check_count("query", request.query_string)
    found = _found_in(request.args) | await _found_in_body(request)
    problems = []
    try:
        params = kind.model_validate(found)
    except ValidationError as error:
        names = dict.fromkeys(str(each["loc"][0]) for each in error.errors(include_url=False, include_input=False))
        problems = [_problem(kind, name, found) for name in names]
    if kind.one_of:
        problems += _problems_of_choice(kind.one_of, found)
    if problems:
        raise CallRefused(400, "; ".join(problems))
    return params


async def _found_in_body(request: Request) -> dict[str, object]:
    if request.mimetype == _MULTIPART:
        return _found_in_form(await request.form)
    body = bytes(await request.get_data(cache=False))  # type: ignore[arg-type]  # text only if one asks for it
    if request.mimetype == _FORM:
        _check_count("form", body)
        return _found_in_form(MultiDict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True)))
    if not body:
        return {}
    if request.mimetype != "application/json":
        raise CallRefused(400, "Content-Type: expected application/json or application/x-www-form-urlencoded")
    try:
        found = _decode_json(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = ()
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise CallRefused(400, "body: expected a JSON object in UTF-8")
    return {name: value for name, value in found.items() if value is not None}


def _check_count(what: str, text: bytes) -> None:
    if text.count(b"&") >= MAX_FIELDS:
        raise CallRefused(400, f"{what}: expected at most {MAX_FIELDS} fields; a list may stand in one, or in JSON")


def _found_in_form(fields: MultiDict[str, str]) -> dict[str, object]:
    found = _found_in(fields)
    # What is not UTF-8 was decoded to this: then two passwords that have not a byte in common would be the same.
    wrong = [str(name) for name, values in fields.lists() if "\ufffd" in "".join([str(name), *values])]
    if wrong:
        raise CallRefused(400, "; ".join(f"{_shown(name)}: expected text in UTF-8" for name in wrong))
    return found


def _found_in(fields: MultiDict[str, str]) -> dict[str, object]:
    return {name: values[0] if len(values) == 1 else values for name, values in fields.lists()}


def _problem(kind: type[Params], name: str, found: dict[str, object]) -> str:
    field = next(field for field in kind.model_fields.values() if field.alias == name)
    expected = next(each for each in field.metadata if isinstance(each, Expected))
    if name not in found:
        return f"{name}: missing, expected {expected.words}"
    if expected.secret:
        return f"{name}: expected {expected.words}"
    return f"{name} = {_shown(found[name])}: expected {expected.words}"


def _problems_of_choice(one_of: tuple[str, ...], found: dict[str, object]) -> list[str]:
    given = [f"{name} = {_shown(found[name])}" for name in one_of if name in found]
    if not given:
        return [f"{' or '.join(one_of)}: missing, expected one of them"]
    return [f"{', '.join(given)}: expected only one of them"] if len(given) > 1 else []


def _shown(value: object) -> str:
    """The value on one line, short, and safe to print anywhere."""
    if isinstance(value, str):
        text = value[: _SHOWN_CHARS + 1]
        text = text if _PLAIN.fullmatch(text) else json.dumps(text)
    else:
        text = json.dumps(value) if _is_short(value) else _KINDS.get(type(value), "a number")
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


def _is_short(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) <= MAX_ID


_KINDS: Final[dict[type[Any], str]] = {list: "a list", dict: "a JSON object"}
