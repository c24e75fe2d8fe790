"""What a function's JSON schema demands of its arguments, as a validator.

Checked are types, `enum`, `const`, `properties`, `required`, `additionalProperties`, `items`,
`anyOf` and `oneOf`. What else a schema may say is the function's own to check: anything passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import CoreSchema, SchemaValidator, core_schema

DEEPEST = 8  # schemas in schemas; what lies deeper is not checked


def validator_of(parameters: Mapping[str, Any] | None, *, partial: bool) -> SchemaValidator:
    """Checks a function's arguments; with `partial`, those of a call that is not whole yet."""
    schema = dict(parameters or {})
    if partial:
        schema["required"] = []
    return SchemaValidator(_object(schema, DEEPEST))


def _schema(given: object, depth: int) -> CoreSchema:
    if not isinstance(given, Mapping) or depth == 0:
        return core_schema.any_schema()
    if "const" in given:
        return _literals([given["const"]])
    if isinstance(values := given.get("enum"), list):
        return _literals(values)
    for key in ("anyOf", "oneOf"):
        if isinstance(choices := given.get(key), list):
            return _union([_schema(choice, depth - 1) for choice in choices])
    match given.get("type"):
        case str(kind):
            return _typed(kind, given, depth)
        case list() as kinds:
            return _union([_typed(kind, given, depth) for kind in kinds])
        case _:
            return core_schema.any_schema()


def _typed(kind: object, given: Mapping[str, Any], depth: int) -> CoreSchema:
    match kind:
        case "string":
            return core_schema.str_schema(strict=True)
        case "integer":
            return core_schema.int_schema(strict=True)
        case "number":
            return core_schema.float_schema(strict=True)
        case "boolean":
            return core_schema.bool_schema(strict=True)
        case "null":
            return core_schema.none_schema()
        case "array":
            return core_schema.list_schema(_schema(given.get("items"), depth - 1), strict=True)
        case "object":
            return _object(given, depth)
        case _:
            return core_schema.any_schema()


def _object(given: Mapping[str, Any], depth: int) -> CoreSchema:
    properties, required = given.get("properties"), given.get("required")
    needed = set(filter(_is_text, required)) if isinstance(required, list) else set()
    known = {str(k): v for k, v in properties.items()} if isinstance(properties, Mapping) else {}
    fields = {
        name: core_schema.typed_dict_field(_schema(one, depth - 1), required=name in needed)
        for name, one in known.items()
    }
    fields |= {
        name: core_schema.typed_dict_field(core_schema.any_schema(), required=True)
        for name in needed - known.keys()
    }
    closed = given.get("additionalProperties") is False
    return core_schema.typed_dict_schema(fields, extra_behavior="forbid" if closed else "allow")


def _literals(values: Sequence[Any]) -> CoreSchema:
    if values and all(isinstance(value, str | int | bool | None) for value in values):
        return core_schema.literal_schema(list(values))
    return core_schema.any_schema()


def _union(choices: Sequence[CoreSchema]) -> CoreSchema:
    return core_schema.union_schema(list(choices)) if choices else core_schema.any_schema()


def _is_text(value: object) -> bool:
    return isinstance(value, str)
