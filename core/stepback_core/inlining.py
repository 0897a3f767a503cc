"""JSON schemas without definitions of their own, to stand inside of another schema."""

from collections.abc import Mapping
from typing import Any, cast

_LOCAL = "#/$defs/"


def inlined(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with its `$defs` in the places that refer to them.

    What refers to itself takes any value there: a schema cannot be unfolded without end.
    """
    definitions: Mapping[str, Any] = schema.get("$defs", {})
    whole = {key: part for key, part in schema.items() if key != "$defs"}
    return cast("dict[str, Any]", _unfold(whole, definitions, ()))


def _unfold(part: object, definitions: Mapping[str, Any], inside: tuple[str, ...]) -> object:
    if isinstance(part, list):
        return [_unfold(each, definitions, inside) for each in cast("list[object]", part)]
    if not isinstance(part, dict):
        return part
    fields = cast("dict[str, object]", part)
    rest = {
        key: _unfold(each, definitions, inside) for key, each in fields.items() if key != "$ref"
    }
    reference = fields.get("$ref")
    if not isinstance(reference, str):
        return rest
    name = reference.removeprefix(_LOCAL)
    if name in inside or name not in definitions:
        return rest
    known = cast("dict[str, object]", _unfold(definitions[name], definitions, (*inside, name)))
    return known | rest
