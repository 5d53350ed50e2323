"""Origins: which pages may use a gateway."""

import pytest

from gateway.core.origin import Origins


@pytest.mark.parametrize(
    ("origin", "host", "local", "allowed"),
    [
        (None, "gateway.example", False, True),  # a program
        ("https://gateway.example", "gateway.example", False, True),
        ("https://gateway.example:8443", "gateway.example:8443", False, True),
        ("https://evil.example", "gateway.example", False, False),
        ("https://listed.example", "gateway.example", False, True),
        ("http://listed.example", "gateway.example", False, False),  # another scheme is another origin
        ("null", "gateway.example", False, False),  # a file, a sandbox
        ("http://localhost", "gateway.example", False, False),
        ("http://localhost:5173", "127.0.0.1:8080", True, True),
        ("http://127.0.0.1", "127.0.0.1:8080", True, True),
        ("http://[::1]", "[::1]:8080", True, True),
        ("http://[::1]:3000", "[::1]:8080", True, True),
        ("http://evil.example", "evil.example", True, False),  # rebound to 127.0.0.1
        ("http://evil.example:8080", "evil.example:8080", True, False),
        ("http://localhost.evil.example:8080", "127.0.0.1:8080", True, False),
        ("https://listed.example", "127.0.0.1:8080", True, True),
        ("null", "127.0.0.1:8080", True, False),
    ],
)
def test_who_may_ask(origin: str | None, host: str, local: bool, allowed: bool) -> None:
    assert Origins(["https://listed.example"], local=local).allows(origin, host) is allowed


def test_a_star_allows_everyone() -> None:
    assert Origins(["*"], local=True).allows("null", "evil.example")
