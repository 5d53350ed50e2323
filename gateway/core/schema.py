"""Types as JSON Schema: draft 7, which AsyncAPI 3 and most tools read, or 2020-12, which OpenAPI 3.1 does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

#: Keys that hold one schema, a list of schemas, or schemas by name. All else is data: a default may look like one.
_ONE = ("items", "additionalItems", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else")
_LIST = ("anyOf", "allOf", "oneOf")
_NAMED = ("properties", "patternProperties", "dependentSchemas")


def schemas(types: Sequence[Any], at: str, *, draft7: bool = True) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a schema for each of ``types``, and by name what they share; ``at`` is where that stands: ``#/x/{name}``.

    A type that msgspec knows only by name is anything, under that name; one that it cannot describe at all (a default
    that is no JSON, a name that does not exist) is anything too: it must not keep the others from being told.
    """
    fit = [_describable(type) for type in types]
    told = [type for type, fits in zip(types, fit, strict=True) if fits]
    made, shared = msgspec.json.schema_components(told, schema_hook=_anything, ref_template=at)
    found = map(_draft7, made) if draft7 else iter(made)
    return (
        [next(found) if fits else {} for fits in fit],
        {name: _draft7(one) if draft7 else one for name, one in shared.items()},
    )


def _describable(type: Any) -> bool:
    try:
        msgspec.json.schema_components([type], schema_hook=_anything)
    except (TypeError, NameError):
        return False
    return True


def _anything(type: Any) -> dict[str, Any]:
    return {"title": getattr(type, "__name__", str(type))}


def _draft7(schema: Any) -> Any:
    """Return what msgspec wrote in draft 2020-12 and OpenAPI's words, in those of draft 7."""
    if not isinstance(schema, dict):
        return schema  # `true`, `false`
    new: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _ONE:
            new[key] = _draft7(value)
        elif key in _LIST:
            new[key] = [_draft7(one) for one in value]
        elif key in _NAMED:
            new[key] = {name: _draft7(one) for name, one in value.items()}
        elif key != "discriminator":
            # OpenAPI's is an object, AsyncAPI's a string with other rules; the tag's own `enum` already tells which.
            new[key] = value
    if "prefixItems" in new:
        # A draft 7 reader knows no `prefixItems`, and would take `items: false` for "always empty".
        rest = new.pop("items", True)
        new["items"] = [_draft7(one) for one in new.pop("prefixItems")]
        new["additionalItems"] = rest
    if "$ref" in new and len(new) > 1:
        # Beside `$ref` draft 7 ignores everything (JSON Reference, 3).
        new["allOf"] = [{"$ref": new.pop("$ref")}, *new.pop("allOf", [])]
    return new
