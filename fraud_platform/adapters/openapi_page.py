"""The OpenAPI document as one page of plain HTML: no script, nothing from elsewhere, so it works offline.

Belongs here: how the document looks. Does not belong here: what it says (`openapi`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

Json = Mapping[str, Any]

_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font:13px/1.5 ui-monospace,monospace}
pre{overflow-x:auto;padding:.6rem;border:1px solid #8884;border-radius:4px}
table{border-collapse:collapse;width:100%;margin:.5rem 0}
th,td{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;border-bottom:1px solid #8884}
h2{margin-top:2.2rem;border-top:1px solid #8884;padding-top:1rem}
.m{font-weight:700;text-transform:uppercase}.n{opacity:.75}
"""


def openapi_page(document: Json) -> str:
    """One HTML page: every operation with its key, body and answers, then every schema with its limits."""
    info = document["info"]
    operations = [
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    keys = document["components"].get("securitySchemes", {})
    said = (
        keys["key"]["description"] if keys else "No key is asked for; only this machine itself is answered."
    )
    about = "".join(f"<p>{escape(part)}</p>" for part in info["description"].split("\n\n"))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])} <span class=n>API {escape(info['version'])}</span></h1>{about}"
        f'<p>{escape(said)}</p><p>The same for programs: <a href="openapi.json">openapi.json</a></p>'
        f"{''.join(operations)}<h2>Schemas</h2>{''.join(schemas)}</body></html>"
    )


def _operation(path: str, method: str, operation: Json) -> str:
    scopes = [
        scope for needed in operation.get("security", ()) for names in needed.values() for scope in names
    ]
    key = f"<p>Key with the scope <code>{', '.join(scopes)}</code></p>" if scopes else ""
    rows = "".join(
        _row(f"<code>{status}</code>", escape(answer["description"]), _content(answer))
        for status, answer in operation["responses"].items()
    )
    sent, name = _sent(operation.get("requestBody")), escape(operation["operationId"])
    return (
        f'<h2 id="{name}"><span class=m>{method}</span> <code>{escape(path)}</code></h2>'
        f"<p>{escape(operation['summary'])}</p>{key}{sent}"
        f"<table><tr><th>Status</th><th>When</th><th>Answer</th></tr>{rows}</table>"
    )


def _sent(body: Json | None) -> str:
    if body is None:
        return ""
    kind = _kind(body["content"]["application/json"]["schema"])
    return f"<p>Body: {kind}. {escape(body['description'])}</p>"


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _content(answer: Json) -> str:
    return ", ".join(
        f"{_kind(media['schema'])} <span class=n>{escape(kind)}</span>"
        for kind, media in answer["content"].items()
    )


def _schema(name: str, schema: Json) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        _row(_named(field, field in required), _kind(one), escape(one.get("description", "")))
        for field, one in schema.get("properties", {}).items()
    )
    said = escape(schema.get("description", ""))
    examples = "".join(
        f"<pre>{escape(json.dumps(one, indent=1))}</pre>" for one in schema.get("examples", ())
    )
    return (
        f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{said}</p>{examples}'
        f"<table><tr><th>Field</th><th>Type</th><th></th></tr>{rows}</table>"
    )


def _named(field: str, is_required: bool) -> str:
    return f"<code>{escape(field)}</code>{'' if is_required else ' <span class=n>optional</span>'}"


def _kind(schema: Json) -> str:
    """A schema in a few words, with its limits and links."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[1])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        limits = _limits(schema, "minItems", "maxItems")
        return f"array of {_kind(schema['items'])}{limits}"
    if schema.get("type") == "object" and schema.get("properties"):
        fields = "; ".join(f"<code>{escape(k)}</code>: {_kind(v)}" for k, v in schema["properties"].items())
        return f"object ({fields})"
    limits = _limits(schema, "minimum", "maximum") or _limits(schema, "minLength", "maxLength")
    return f"{escape(str(schema.get('type', 'any')))}{limits}"


def _limits(schema: Json, least: str, most: str) -> str:
    low, high = schema.get(least), schema.get(most)
    if low is None and high is None:
        return ""
    unit = " characters" if most == "maxLength" else ""
    if low is None:
        return f", at most {high}{unit}"
    return f", from {low}{unit}" if high is None else f", {low} to {high}{unit}"
