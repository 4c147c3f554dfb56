"""Answers of a given shape: the smallest value that a JSON schema takes in."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

Schema = Mapping[str, Any]

_DEEPEST = 8
_PLAIN: Mapping[str, Any] = {"string": "ok", "integer": 1, "number": 1.0, "boolean": True, "array": [], "null": None}


class Named(Struct, frozen=True):
    """Something with a name: a function, a tool, a forced choice."""

    name: str = ""
    parameters: dict[str, Any] = {}


def sample(schema: Schema, root: Schema | None = None, depth: int = 0) -> Any:
    """A value of `schema`: required members only, first alternatives; a ``$ref`` into `root`, the whole of it, is followed."""
    root = schema if root is None else root
    if depth > _DEEPEST:
        return None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if (same := _same_as(schema, root)) is not None:
        return sample(same, root, depth + 1)
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0] if kind else "object"
    if kind != "object":
        return _PLAIN.get(kind)
    members = schema.get("properties", {})
    return {name: sample(members.get(name, {}), root, depth + 1) for name in schema.get("required", ())}


def _same_as(schema: Schema, root: Schema) -> Schema | None:
    """The schema that this one says it is like."""
    for alternatives in ("anyOf", "oneOf", "allOf"):
        if schema.get(alternatives):
            first: Schema = schema[alternatives][0]
            return first
    found: Any = root if "$ref" in schema else None
    for name in str(schema.get("$ref", "")).split("/")[1:]:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def sampled(schema: Schema) -> bytes:
    """The same as JSON."""
    return msgspec.json.encode(sample(schema))


def chosen(names: list[str], choice: Any) -> int | None:
    """Which tool is called: the one that is forced, the first if one is required, none otherwise.

    `choice` is a word, or an object that has the name in it or in its ``function``.
    """
    if choice == "required":
        return 0 if names else None
    if isinstance(choice, dict):
        wanted = choice.get("name") or choice.get("function", {}).get("name")
        return names.index(wanted) if wanted in names else None
    return None
