"""A value that fits a JSON schema: what Hello calls tools with, and answers with where a schema of the answer is given."""

from collections.abc import Mapping
from typing import Any

import msgspec

Schema = Mapping[str, Any]

_SIMPLE: Mapping[str, Any] = {"string": "ok", "integer": 1, "number": 1, "boolean": True, "null": None}
_DEEPEST = 20


def sample(schema: Schema, root: Schema | None = None, depth: int = 0) -> Any:
    """The first of what is allowed: a constant, the first of several, objects with what they require."""
    root = root or schema
    if depth > _DEEPEST:
        return None
    if "const" in schema or schema.get("enum"):
        return schema.get("const", next(iter(schema.get("enum", ())), None))
    if (target := _target(schema, root)) is not None:
        return sample(target, root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next(iter(kind), "string")
    if kind == "object":
        properties = schema.get("properties") or {}
        required = [name for name in schema.get("required") or () if name in properties]
        return {name: sample(properties[name], root, depth + 1) for name in required}
    if kind == "array":
        return [sample(schema.get("items") or {}, root, depth + 1)] * int(schema.get("minItems", 1))
    return _SIMPLE.get(kind)


def sampled(schema: Schema) -> bytes:
    """A sample as JSON: one word, but for the spaces in a constant."""
    return msgspec.json.encode(sample(schema))


def _target(schema: Schema, root: Schema) -> Schema | None:
    """Where a schema says: like that one."""
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            first: Schema = schema[name][0]
            return first
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return None
    found: Any = root
    for name in reference.removeprefix("#/").split("/"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None
