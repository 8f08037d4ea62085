"""GET /openapi.json, made from the same classes that check the parameters; and GET /docs, the same for people.

The page is plain HTML: the usual viewers load their scripts from other hosts.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable
from html import escape
from importlib.metadata import version
from typing import Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel
from quart import Blueprint, Response, current_app
from quart_schema import APIKeySecurityScheme, HttpSecurityScheme, Info, QuartSchema, Server, hide
from quart_schema import security_scheme as with_security
from quart_schema.documentation import document_request, document_response
from quart_schema.openapi import OpenAPIProvider
from quart_schema.validation import DataSource
from quart_trio import QuartTrio
from werkzeug.routing import Rule

from qiyu.protocol.bodies import encode_json
from qiyu.web.params import Expected, Params

V = TypeVar("V", bound=Callable[[], Awaitable[Response]])
T = TypeVar("T")

_EXTENSION: Final = "qiyu.openapi"
_DESCRIBED: Final = "qiyu.described"
_SECURITY: Final[list[dict[str, list[str]]]] = [{"cookie": []}, {"bearer": []}]
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}th,td{text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0}"
    "h2{margin-top:2.5rem;font-size:1.1rem}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_CSP: Final = f"default-src 'none'; frame-ancestors 'none'; style-src 'sha256-{_STYLE_HASH}'"

docs = Blueprint("docs", __name__)


class Success(BaseModel, Generic[T]):
    """Done; `data` is what was asked for."""

    code: Literal[200]
    msg: str
    data: T


class Failure(BaseModel):
    """Not done; `msg` says why. HTTP's status is `code`, but 409 for code 501."""

    code: int
    msg: str
    data: None


def document(view: V, params: type[Params], data: type[BaseModel] | None, *, needs_login: bool) -> V:
    """Put a call into the description."""
    if params.model_fields:
        view = document_request(params, source=DataSource.JSON)(view)
    answer = Success[data] if data is not None else Success[None]  # type: ignore[valid-type]
    view = document_response(answer)(view)
    return with_security(_SECURITY)(view) if needs_login else view


class _Provider(OpenAPIProvider):
    """As quart-schema describes the calls, and what is the same for all of them."""

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        paths, components = super().build_paths(rule)
        for operations in paths.values():
            for method, operation in operations.items():
                is_call = method == "post"
                operation["responses"]["default"] = _FAILURE if is_call else {"description": "what there is to say"}
                operation["tags"] = [rule.rule.split("/")[1] if is_call else "health"]
        components["Failure"] = Failure.model_json_schema()
        return paths, components

    def build_request_body(self, model: Any, source: DataSource) -> tuple[dict[str, Any], dict[str, Any]]:
        body, components = super().build_request_body(model, source)
        schema = body["content"]["application/json"]["schema"]
        schema.pop("description", None)
        for name, expected in expected_of(model).items():
            schema["properties"][name]["description"] = expected.words
        body["content"]["application/x-www-form-urlencoded"] = {"schema": schema}
        body["required"] = bool(schema.get("required"))
        return body, components


_FAILURE: Final = {
    "description": "not done; `msg` says why",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}},
}


def expected_of(params: type[Params]) -> dict[str, Expected]:
    """What each parameter accepts, by its name in a request."""
    return {
        field.alias or name: each
        for name, field in params.model_fields.items()
        for each in field.metadata
        if isinstance(each, Expected)
    }


def add_openapi(app: QuartTrio, path: str = "") -> None:
    """Describe every call of `app`, which is served below `path`; the paths are those of `docs`."""
    QuartSchema(
        app,
        openapi_path=None,
        servers=[Server(url=path)] if path else [],
        info=Info(
            title="qiyu",
            version=version("qiyu"),
            description="Parameters may stand in a JSON body, in form fields, or in the query. "
            'Every answer is `{"code", "msg", "data"}`.',
        ),
        security_schemes={
            "cookie": APIKeySecurityScheme(name="qytk", in_="cookie"),
            "bearer": HttpSecurityScheme(scheme="bearer"),
        },
        openapi_provider_class=_Provider,
    )


def describe_instead(app: QuartTrio, described: QuartTrio) -> None:
    """Have the pages of `docs` in `app` describe the calls of another application."""
    app.extensions[_DESCRIBED] = described


def _schema() -> dict[str, Any]:
    """Made when it is first asked for: that takes some milliseconds."""
    extensions = current_app.extensions.get(_DESCRIBED, current_app).extensions
    if _EXTENSION not in extensions:
        extensions[_EXTENSION] = extensions["QUART_SCHEMA"].openapi_provider.schema()
    schema: dict[str, Any] = extensions[_EXTENSION]
    return schema


@docs.get("/openapi.json")
@hide
async def openapi() -> Response:
    """The description of this interface, for machines."""
    return Response(encode_json(_schema()), content_type="application/json", headers={"Cache-Control": "no-cache"})


@docs.get("/docs")
@hide
async def page() -> Response:
    """The description of this interface, for people."""
    calls = [
        _call_as_html(method, path, operation)
        for path, operations in _schema()["paths"].items()
        for method, operation in operations.items()
    ]
    html = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>qiyu</title><style>{_STYLE}</style>'
        "<h1>qiyu</h1><p>Parameters may stand in a JSON body, in form fields, or in the query. Every answer is "
        '<code>{"code", "msg", "data"}</code>. For machines: <a href="openapi.json">openapi.json</a>.</p>'
        f"{''.join(calls)}</html>"
    )
    headers = {"Content-Security-Policy": _CSP, "Cache-Control": "no-cache"}
    return Response(html, content_type="text/html; charset=utf-8", headers=headers)


def _call_as_html(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation.get('summary', ''))}"]
    if "security" in operation:
        lines.append(" Needs a session.")
    lines.append("</p>")
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    rows = [
        f"<tr><td><code>{escape(name)}</code>{'' if name in schema.get('required', ()) else ' (optional)'}"
        f"<td>{escape(field.get('description', ''))}"
        for name, field in schema.get("properties", {}).items()
    ]
    if rows:
        lines.append(f"<table>{''.join(rows)}</table>")
    return "".join(lines)
