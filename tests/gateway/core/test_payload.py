"""Payloads: every hostile JSON with its answer, and properties of what passes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import limits
from gateway.core.payload import PayloadType, check, check_json, kept_type
from gateway.errors import BadPayload, TooLarge

DEEP, DIGITS = limits.JSON_DEPTH, limits.JSON_DIGITS

REFUSED = {
    "one key twice": (b'{"a":1,"a":1}', "key 'a' twice"),
    "one key twice, one time escaped": (rb'{"a":1,"\u0061":2}', "key 'a' twice"),
    "one key twice, both escaped": (rb'{"\u0061":1,"\u0061":2}', "key 'a' twice"),
    "one key twice, escaped slash": (rb'{"a/b":1,"a\/b":2}', "key 'a/b' twice"),
    "one key twice, surrogate pair": ('{"😀":1,"\\ud83d\\ude00":2}'.encode(), "twice"),
    "one key twice, far down": (b'[{"x":[{"b":1,"c":2,"b":1}]}]', "key 'b' twice"),
    "one level too deep": (b"[" * (DEEP + 1) + b"]" * (DEEP + 1), "too deep"),
    "one level too deep, objects": (b'{"a":' * (DEEP + 1) + b"1" + b"}" * (DEEP + 1), "too deep"),
    "one level too deep, pretty": (b"[ " * (DEEP + 1) + b"] " * (DEEP + 1), "too deep"),
    "900 deep": (b"[ " * 900 + b"]" * 900, "too deep"),
    "10,000 deep": (b"[" * 10_000 + b"]" * 10_000, "too deep"),
    "10,000 deep, objects": (b'{"a":' * 10_000, "too deep"),
    "lone high surrogate": (rb'"\ud800"', "not JSON"),
    "lone low surrogate": (rb'"\udc00"', "not JSON"),
    "high surrogate without its pair": (rb'"\ud800\u0041"', "not JSON"),
    "lone surrogate in a key": (rb'{"\ud800":1}', "not JSON"),
    "surrogate as UTF-8": (b'"\xed\xa0\x80"', "not JSON"),
    "NaN": (b"NaN", "not JSON"),
    "NaN inside": (b'{"a":NaN}', "not JSON"),
    "Infinity": (b"[-Infinity]", "not JSON"),
    "a digit too many": (b"1" * (DIGITS + 1), f"{DIGITS + 1} digits"),
    "a digit too many, negative": (b"-" + b"1" * (DIGITS + 1), f"{DIGITS + 1} digits"),
    "a digit too many, pretty": (b"[ " + b"1" * (DIGITS + 1) + b" ]", f"{DIGITS + 1} digits"),
    "400 digits": (b'{"n":' + b"1" * 400 + b"}", "400 digits"),
    "60,000 digits": (b"1" * 60_000, "not JSON"),
    "400 digits and a fraction": (b"1" * 400 + b".5", "not JSON"),
    "beyond a double": (b"1e400", "not JSON"),
    "byte order mark": (b"\xef\xbb\xbf{}", "not JSON"),
    "two documents": (b"{} {}", "not JSON"),
    "trailing letters": (b"1 x", "not JSON"),
    "not UTF-8": (b'"\xff"', "not JSON"),
    "not UTF-8 in a key": (b'{"\xff":1}', "not JSON"),
    "not UTF-8, pretty": (b'{ "a" : "\xc3" }', "not JSON"),
    "overlong UTF-8": (b'"\xc0\xaf"', "not JSON"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), "not JSON"),
    "raw newline in a string": (b'"a\nb"', "not JSON"),
    "raw return in a string": (b'{"a\rb":1}', "not JSON"),
    "raw tab in a string": (b'"a\tb"', "not JSON"),
    "raw NUL in a string": (b'"\x00"', "not JSON"),
    "empty": (b"", "not JSON"),
    "only space": (b" \n ", "not JSON"),
    "leading zero": (b"01", "not JSON"),
    "plus sign": (b"+1", "not JSON"),
    "no digit before the point": (b".5", "not JSON"),
    "no digit after the point": (b"1.", "not JSON"),
    "hexadecimal": (b"0x10", "not JSON"),
    "single quotes": (b"{'a':1}", "not JSON"),
    "comment": (b"/**/1", "not JSON"),
    "comma at the end": (b"[1,]", "not JSON"),
    "form feed as space": (b"\x0c1", "not JSON"),
    "unknown escape": (rb'"\x41"', "not JSON"),
    "cut short": (b'{"a":[1,2', "not JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_json_is_refused_with_its_reason(name: str) -> None:
    data, says = REFUSED[name]
    with pytest.raises(BadPayload, match=says) as caught:
        check_json(data)
    assert caught.value.remedy
    # A reason goes to logs and dead letters: it may not carry the payload along.
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "data",
    [
        b"1",
        b"null",
        b'""',
        b"{}",
        b'{"a":{"a":1}}',
        b'[{"a":1},{"a":1}]',
        b'{"a":1,"A":2}',
        b"[" * DEEP + b"]" * DEEP,
        b"[ " * DEEP + b"]" * DEEP,
        b"[" + b",".join([b"[]"] * 500) + b"]",  # many brackets, none deep
        b'"' + b"[" * 500 + b'"',
        b"1" * DIGITS,
        b"[ -" + b"1" * DIGITS + b" ]",
        b'"' + b"1" * 400 + b'"',  # digits of a string are no number
        b"0." + b"1" * 400,
        b"18446744073709551616",
        b"-0",
        b"1E+2",
        b'"\x7f"',
        rb'"\ud83d\ude00 \u0000 \/"',
        '{"ключ":"значение"}'.encode(),
    ],
)
def test_valid_json_on_one_line_is_kept_byte_for_byte(data: bytes) -> None:
    assert check_json(data) == data


def test_pretty_printed_json_becomes_one_line_and_the_same_value() -> None:
    value = {"a": [1, 2.5, None], "b": {"c": "line\nbreak", "d": "\r"}}
    for line_end in ("\n", "\r\n", "\r"):
        pretty = json.dumps(value, indent=2).replace("\n", line_end).encode()
        kept = check_json(pretty)
        assert b"\n" not in kept
        assert b"\r" not in kept
        assert len(kept) == len(pretty)
        assert json.loads(kept) == value


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values, st.sampled_from([None, 0, 2, "\t"]), st.booleans())
def test_whatever_json_passes_is_one_line_and_the_same_value(value: Any, indent: int | str | None, ascii: bool) -> None:
    try:
        data = json.dumps(value, indent=indent, ensure_ascii=ascii).encode()
    except UnicodeEncodeError:
        return
    try:
        kept = check_json(data)
    except BadPayload:
        # Only what I-JSON cannot hold may be refused: here, text with a lone surrogate.
        assert "\\ud" in json.dumps(value)
        return
    assert b"\n" not in kept
    assert b"\r" not in kept
    assert json.loads(kept) == value


JSON_BYTES = st.lists(
    st.sampled_from([b"{", b"}", b"[", b"]", b":", b",", b'"', b'"a"', rb'"\u0061"', b"1", b"-", b".", b"e5", b"null"])
    | st.sampled_from([b" ", b"\n", b"\r", b"\t", b"\\", b"\\u00", b"\xff", b"\xc3\xbc", b"\x00", b"NaN", b"true"]),
    max_size=12,
).map(b"".join)


@given(JSON_BYTES)
def test_any_bytes_are_kept_on_one_line_or_refused_and_no_key_is_ever_doubled(data: bytes) -> None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    try:
        kept = check_json(data)
    except BadPayload:
        return
    assert not {10, 13} & set(kept)
    json.loads(kept, object_pairs_hook=once)


#: Both spellings of each of three keys, compact: the form for which the quick path was made.
TWIN_KEYS = st.lists(
    st.sampled_from(['"a"', r'"\u0061"', '"é"', r'"\u00e9"', r'"\u00E9"', '"/"', r'"\/"']), min_size=1, max_size=4
)


@given(TWIN_KEYS)
def test_the_quick_path_cannot_be_fooled_by_spelling(keys: list[str]) -> None:
    data = ("{" + ",".join(f"{key}:1" for key in keys) + "}").encode()
    if len({json.loads(key) for key in keys}) == len(keys):
        assert check_json(data) == data
    else:
        with pytest.raises(BadPayload, match="twice"):
            check_json(data)


def test_a_payload_may_fill_its_bound_but_not_exceed_it() -> None:
    assert check(b"1234", most=4) == b"1234"
    with pytest.raises(TooLarge, match="has 5 bytes; this topic takes at most 4"):
        check(b"12345", most=4)
    with pytest.raises(TooLarge):
        check(b"\xff" * (limits.PAYLOAD_BYTES + 1), "bytes")


def test_text_is_utf8_and_bytes_are_anything() -> None:
    assert check("zwölf\n".encode(), "text") == "zwölf\n".encode()
    assert check(b"\xff\x00\n", "bytes") == b"\xff\x00\n"
    assert check(b"", "text") == check(b"", "bytes") == b""
    with pytest.raises(BadPayload, match="not UTF-8 at byte 2"):
        check(b"ab\xff", "text")


@pytest.mark.parametrize(
    ("type", "kind", "data", "kept"),
    [
        ("json", "text/csv", b"1", ""),
        ("json", "", b"1", ""),
        ("text", "", b"a", "text/plain"),
        ("text", "text/markdown", b"a", "text/markdown"),
        ("bytes", "application/octet-stream", b"a", "application/octet-stream"),
        ("bytes", "application/json", b"a", "application/octet-stream"),
        ("bytes", "image/png", b"\x89", "image/png"),
        ("bytes", "text/csv", b"a,b", "text/csv"),
        ("bytes", "text/csv", b"\xff", "application/octet-stream"),
    ],
)
def test_a_payload_is_kept_as_what_it_is(type: PayloadType, kind: str, data: bytes, kept: str) -> None:
    assert kept_type(type, kind, data) == kept
