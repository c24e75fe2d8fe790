"""What is demanded of a function's arguments: the part of its JSON schema that is held to.

Held to are types, `enum`, `const`, `properties`, `required`, `additionalProperties`, `items`,
`anyOf` and `oneOf`. What else a schema may say is the function's own to check: anything passes. A
call is held to it twice: while its ids are drawn (`schema_of_call`), and once it is there
(`validator_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic_core import CoreSchema, SchemaValidator, core_schema, to_json

from aqaa.server.dialogue.tools import Tool

DEEPEST = 8  # schemas in schemas; what lies deeper is not held to


def validator_of(parameters: Mapping[str, Any] | None, *, partial: bool) -> SchemaValidator:
    """Checks a function's arguments; with `partial`, those of a call that is not whole yet."""
    schema = _arguments(parameters)
    if partial:
        schema["required"] = []
    return SchemaValidator(_validated(schema))


def schema_of_call(tools: Sequence[Tool]) -> str:
    """JSON schema, as JSON, of a call of any of `tools`: `{"name":...,"arguments":{...}}`."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"enum": [tool.name]}, "arguments": _arguments(tool.parameters)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return to_json({"anyOf": calls}).decode()


def unwritable(tool: Tool, writes: Callable[[str], bool]) -> str | None:
    """What stands in every call of `tool` and cannot be written; None: `tool` can be called.

    `writes`: whether the decoder can write a text.
    """
    return _unwritable(_one_of([tool.name]), writes) or _unwritable(
        _arguments(tool.parameters), writes
    )


def _unwritable(held: Mapping[str, Any], writes: Callable[[str], bool]) -> str | None:
    match held:
        case {"enum": values}:
            texts = [to_json(value).decode() for value in values]
            return None if any(map(writes, texts)) else texts[0]
        case {"anyOf": choices}:
            missing = [_unwritable(choice, writes) for choice in choices]
            return missing[0] if all(missing) else None
        case {"type": "object", "required": names, "properties": properties}:
            demanded = ((_one_of([name]), properties[name]) for name in names)
            found = (_unwritable(one, writes) for pair in demanded for one in pair)
            return next(filter(None, found), None)
        case _:
            return None


def _arguments(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    return _object(parameters or {}, DEEPEST)


def _held(given: object, depth: int) -> dict[str, Any]:
    """What of a schema is held to: nothing, or `enum`, or `anyOf`, or a `type` and what is its."""
    if not isinstance(given, Mapping) or depth == 0:
        return {}
    if "const" in given:
        return _one_of([given["const"]])
    if isinstance(values := given.get("enum"), list):
        return _one_of(values)
    for key in ("anyOf", "oneOf"):
        if isinstance(choices := given.get(key), list):
            return _any_of([_held(choice, depth - 1) for choice in choices])
    match given.get("type"):
        case list() as kinds:
            return _any_of([_typed(kind, given, depth) for kind in kinds])
        case kind:
            return _typed(kind, given, depth)


def _typed(kind: object, given: Mapping[str, Any], depth: int) -> dict[str, Any]:
    match kind:
        case "string" | "integer" | "number" | "boolean" | "null":
            return {"type": kind}
        case "array":
            return {"type": "array", "items": _held(given.get("items"), depth - 1)}
        case "object":
            return _object(given, depth)
        case _:
            return {}


def _object(given: Mapping[str, Any], depth: int) -> dict[str, Any]:
    properties, required = given.get("properties"), given.get("required")
    known = {str(k): v for k, v in properties.items()} if isinstance(properties, Mapping) else {}
    needed = dict.fromkeys(filter(_is_text, required if isinstance(required, list) else ()))
    return {
        "type": "object",
        "properties": {name: _held(known.get(name), depth - 1) for name in {**known, **needed}},
        "required": list(needed),
        "additionalProperties": given.get("additionalProperties") is not False,
    }


def _one_of(values: Sequence[Any]) -> dict[str, Any]:
    simple = values and all(isinstance(value, str | int | bool | None) for value in values)
    return {"enum": list(values)} if simple else {}


def _any_of(choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"anyOf": choices} if choices else {}


def _validated(held: Mapping[str, Any]) -> CoreSchema:
    match held:
        case {"enum": values}:
            return core_schema.literal_schema(values)
        case {"anyOf": choices}:
            return core_schema.union_schema([_validated(choice) for choice in choices])
        case {"type": "string"}:
            return core_schema.str_schema(strict=True)
        case {"type": "integer"}:
            return core_schema.int_schema(strict=True)
        case {"type": "number"}:
            return core_schema.float_schema(strict=True)
        case {"type": "boolean"}:
            return core_schema.bool_schema(strict=True)
        case {"type": "null"}:
            return core_schema.none_schema()
        case {"type": "array", "items": items}:
            return core_schema.list_schema(_validated(items), strict=True)
        case {"type": "object"}:
            fields = {
                name: core_schema.typed_dict_field(
                    _validated(one), required=name in held["required"]
                )
                for name, one in held["properties"].items()
            }
            closed = not held["additionalProperties"]
            extra: Literal["allow", "forbid"] = "forbid" if closed else "allow"
            return core_schema.typed_dict_schema(fields, extra_behavior=extra)
        case _:
            return core_schema.any_schema()


def _is_text(value: object) -> bool:
    return isinstance(value, str)
