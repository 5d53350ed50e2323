"""Types as JSON Schema: in the words of draft 7, and with nothing lost."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.schema import schemas

AT = "#/s/{name}"


class Leaf(msgspec.Struct, frozen=True, tag=True):
    n: int


class Tree(msgspec.Struct, tag=True):
    below: list[Tree | Leaf] = []
    pair: tuple[int, str] = (1, "a")
    first: Leaf = Leaf(0)
    #: A field and a default that are called as words of JSON Schema.
    prefixItems: dict[str, Any] = msgspec.field(default_factory=dict)
    items: Any = msgspec.field(default=None)


class Flat(msgspec.Struct, array_like=True):
    a: int


class Vendor:
    pass


def one(type: Any) -> Any:
    (made,), _ = schemas([type], AT)
    return made


def test_types_share_what_has_a_name() -> None:
    made, shared = schemas([Tree, int, Leaf], AT)
    assert made == [{"$ref": "#/s/Tree"}, {"type": "integer"}, {"$ref": "#/s/Leaf"}]
    assert shared.keys() == {"Tree", "Leaf"}
    assert shared["Tree"]["properties"]["below"]["items"] == {"anyOf": [{"$ref": "#/s/Tree"}, {"$ref": "#/s/Leaf"}]}
    assert schemas([], AT) == ([], {})


def test_a_tuple_is_in_the_words_of_draft_7() -> None:
    pair = {"items": [{"type": "integer"}, {"type": "string"}], "additionalItems": False}
    _, shared = schemas([Tree], AT)
    found = shared["Tree"]["properties"]["pair"]
    assert {key: found[key] for key in pair} == pair
    assert "prefixItems" not in found
    _, flat = schemas([Flat], AT)
    assert (flat["Flat"]["items"], flat["Flat"]["additionalItems"]) == ([{"type": "integer"}], True)
    assert one(tuple[int, ...]) == {"type": "array", "items": {"type": "integer"}}


def test_what_stands_beside_a_reference_is_not_lost() -> None:
    _, shared = schemas([Tree], AT)
    assert shared["Tree"]["properties"]["first"] == {
        "allOf": [{"$ref": "#/s/Leaf"}],
        "default": {"type": "Leaf", "n": 0},
    }


def test_fields_may_be_called_as_words_of_json_schema() -> None:
    _, shared = schemas([Tree], AT)
    assert {"prefixItems", "items"} <= shared["Tree"]["properties"].keys()


class Odd(msgspec.Struct):
    vendor: Vendor = Vendor()


def test_one_that_cannot_be_described_does_not_hide_the_others() -> None:
    class Unfinished(msgspec.Struct):
        later: Missing  # type: ignore[name-defined]  # noqa: F821  a mistake of its author

    made, shared = schemas([int, Odd, Leaf, Unfinished, Odd, Leaf], AT)
    assert made == [{"type": "integer"}, {}, {"$ref": "#/s/Leaf"}, {}, {}, {"$ref": "#/s/Leaf"}]
    assert shared.keys() == {"Leaf"}


def test_a_type_that_nothing_here_knows_is_anything() -> None:
    assert one(Vendor) == {"title": "Vendor"}


def test_openapi_has_the_words_that_msgspec_writes() -> None:
    made, shared = schemas([Tree, Vendor], AT, draft7=False)
    assert made == [{"$ref": "#/s/Tree"}, {"title": "Vendor"}]
    assert shared["Tree"]["properties"]["pair"]["prefixItems"] == [{"type": "integer"}, {"type": "string"}]
    assert shared["Tree"]["properties"]["below"]["items"]["discriminator"]["propertyName"] == "type"
