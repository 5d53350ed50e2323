"""Tokens: the table of forgeries with the answer to each, and the secret's file."""

import base64
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest

from gateway import limits
from gateway.adapters.tokens import Grant, Verifier, issue, load_or_create_secret, load_secret, secret
from gateway.core.access import Principal
from gateway.errors import BadToken, Misconfigured, Refused, TokenExpired
from gateway.settings import GatewayTable, Settings, TokensTable

NOW = 1_800_000_000
SECRET = b"a secret of the tests, long enough"
GOOD = {"sub": "alice", "exp": NOW + 60}
HEADER = {"alg": "HS256", "typ": "JWT"}


@pytest.fixture
def verifier(tmp_path: Path) -> Callable[..., Verifier]:
    def make(**tokens: Any) -> Verifier:
        path = tmp_path / "secret"
        path.write_bytes(SECRET + b"\n")
        path.chmod(0o600)
        return Verifier(Settings(tokens=TokensTable(hs256_secret_file=str(path), **tokens)))

    return make


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims: bytes | dict[str, Any], header: bytes | dict[str, Any] = HEADER, key: bytes = SECRET) -> str:
    """Sign whatever bytes these are, as a library with fewer scruples would."""
    head, body = (part(x if isinstance(x, bytes) else json.dumps(x).encode()) for x in (header, claims))
    seal = jwt.get_algorithm_by_name("HS256").sign(f"{head}.{body}".encode(), key)
    return f"{head}.{body}.{part(seal)}"


def claims(**more: Any) -> dict[str, Any]:
    return {name: value for name, value in {**GOOD, **more}.items() if value is not ...}


REFUSED = {
    "empty": ("", "is not three parts"),
    "two parts": ("a.b", "is not three parts"),
    "five parts, as of encryption": ("a.b.c.d.e", "is not three parts"),
    "padding": ("YQ==.YQ==.YQ==", "is not three parts"),
    "a line break at the end": (signed(GOOD) + "\n", "is not three parts"),
    "not ASCII": ("ä.b.c", "is not three parts"),
    "64 KB": (signed(claims(pad="x" * 64_000)), "is too long"),
    "64 KB of dots": ("." * 64_000, "is too long"),
    "base64 of no length": ("a.b.c", "header cannot be read"),
    "header is no JSON": (signed(GOOD, b"{"), "header cannot be read"),
    "header is a list": (signed(GOOD, b"[]"), "header is no JSON object"),
    "header not UTF-8": (signed(GOOD, b'{"alg":"\xff"}'), "header cannot be read"),
    "header 700 deep": (signed(GOOD, b"[" * 700 + b"]" * 700), "header cannot be read"),
    "alg none": (f"{part(json.dumps({'alg': 'none'}).encode())}.{part(json.dumps(GOOD).encode())}.AA", "alg is not"),
    "alg None": (signed(GOOD, {"alg": "None"}), "alg is not HS256"),
    "alg absent": (signed(GOOD, {"typ": "JWT"}), "alg is not HS256"),
    "alg lower case": (signed(GOOD, {"alg": "hs256"}), "alg is not HS256"),
    "alg HS512": (jwt.encode(GOOD, SECRET * 2, algorithm="HS512"), "alg is not HS256"),
    "alg RS256": (signed(GOOD, {"alg": "RS256"}), "alg is not HS256"),
    "alg a list": (signed(GOOD, {"alg": ["HS256"]}), "alg is not HS256"),
    "alg twice": (signed(GOOD, b'{"alg":"none","alg":"HS256"}'), "key 'alg' twice"),
    "kid as a path": (signed(GOOD, {**HEADER, "kid": "../../dev/null"}), "kid is no key id"),
    "kid as a query": (signed(GOOD, {**HEADER, "kid": "x' OR 1=1"}), "kid is no key id"),
    "kid a number": (signed(GOOD, {**HEADER, "kid": 7}), "kid is no key id"),
    "a key of its own": (signed(GOOD, {**HEADER, "jwk": {}}), "header has 'jwk'"),
    "a key by URL": (signed(GOOD, {**HEADER, "jku": "http://localhost/"}), "header has 'jku'"),
    "rules of its own": (signed(GOOD, {**HEADER, "crit": ["b64"], "b64": False}), "header has 'b64'"),
    "typ of something else": (signed(GOOD, {**HEADER, "typ": "dpop+jwt"}), "typ is not JWT"),
    "typ a number": (signed(GOOD, {**HEADER, "typ": 1}), "typ is not JWT"),
    "another secret": (signed(GOOD, key=b"another secret, just as long as ours"), "not signed with our secret"),
    "the empty secret": (signed(GOOD, key=b""), "not signed with our secret"),
    "no signature": (signed(GOOD).rpartition(".")[0] + ".", "is not three parts"),
    "a signature cut short": (signed(GOOD)[:-4], "not signed with our secret"),
    "claims exchanged": (
        ".".join(
            a + "." + b + "." + c
            for (a, _, _), (_, b, _), (_, _, c) in [
                (signed(GOOD).split("."), signed(claims(sub="root")).split("."), signed(GOOD).split("."))
            ]
        ),
        "not signed with our secret",
    ),
    "claims no JSON": (signed(b"alice"), "claims cannot be read"),
    "claims a list": (signed(b"[]"), "claims is no JSON object"),
    "claims 700 deep": (signed(b'{"a":' * 400 + b"1" + b"}" * 400), "claims cannot be read"),
    "sub twice": (signed(b'{"sub":"alice","sub":"root","exp":1800000060}'), "key 'sub' twice"),
    "sub twice, once escaped": (signed(rb'{"sub":"alice","s\u0075b":"root","exp":1800000060}'), "key 'sub' twice"),
    "role twice": (signed(b'{"sub":"a","role":"user","role":"operator","exp":1800000060}'), "key 'role' twice"),
    "no sub": (signed(claims(sub=...)), "sub is absent or no text"),
    "sub null": (signed(claims(sub=None)), "sub is absent or no text"),
    "sub a number": (signed(claims(sub=42)), "sub is absent or no text"),
    "sub a list": (signed(claims(sub=["alice"])), "sub is absent or no text"),
    "sub empty": (signed(claims(sub="")), "sub is empty"),
    "sub a space": (signed(claims(sub=" ")), "sub is empty"),
    "sub with a space at the end": (signed(claims(sub="alice ")), "sub is empty, or begins or ends"),
    "sub with a line break": (signed(claims(sub="alice\nroot")), "control character"),
    "sub with NUL": (signed(claims(sub="alice\0")), "control character"),
    "sub written backwards": (signed(claims(sub="\u202eecila")), "control character"),
    "sub with half a character": (signed(rb'{"sub":"\ud800","exp":1800000060}'), "claims cannot be read"),
    "sub too long": (signed(claims(sub="a" * 129)), "longer than 128 bytes"),
    "sub a wildcard": (signed(claims(sub="+")), "no topic level can hold"),
    "sub of two levels": (signed(claims(sub="a/b")), "no topic level can hold"),
    "no exp": (signed(claims(exp=...)), "has no exp"),
    "exp null": (signed(claims(exp=None)), "exp is no time"),
    "exp a text": (signed(claims(exp=str(NOW + 60))), "exp is no time"),
    "exp true": (signed(claims(exp=True)), "exp is no time"),
    "exp NaN": (signed(b'{"sub":"alice","exp":NaN}'), "claims cannot be read"),
    "exp beyond a double": (signed(b'{"sub":"alice","exp":1e999}'), "claims cannot be read"),
    "exp in milliseconds": (signed(claims(exp=NOW * 1000)), "exp is no time"),
    "exp negative": (signed(claims(exp=-1)), "exp is no time"),
    "exp of 300 digits": (signed(b'{"sub":"alice","exp":' + b"9" * 300 + b"}"), "exp is no time"),
    "nbf in the future": (signed(claims(nbf=NOW + 31)), "nbf lies in the future"),
    "nbf false": (signed(claims(nbf=False)), "nbf is no time"),
    "iat in the future": (signed(claims(iat=NOW + 31)), "iat lies in the future"),
    "iat a text": (signed(claims(iat="now")), "iat is no time"),
    "exp in two years": (signed(claims(exp=NOW + 2 * limits.TOKEN_LIFE)), "lasts longer than 366 days"),
    "jti a number": (signed(claims(jti=7)), "jti is no short text"),
    "jti too long": (signed(claims(jti="j" * 129)), "jti is no short text"),
    "a key inside": (signed(GOOD, {**HEADER, "x5u": "https://localhost/"}), "header has 'x5u'"),
    "crit alone": (signed(GOOD, {**HEADER, "crit": []}), "header has 'crit'"),
    "role device": (signed(claims(role="device")), "vouches for no device"),
    "role service": (signed(claims(role="service")), "vouches for no service"),
    "role anonymous": (signed(claims(role="anonymous")), "role is unknown"),
    "role unknown": (signed(claims(role="admin")), "role is unknown"),
    "role a list": (signed(claims(role=["operator"])), "role is unknown"),
    "role true": (signed(claims(role=True)), "role is unknown"),
    "an aud where there is none": (signed(claims(aud="gateway")), "this gateway has none"),
    "aud a number": (signed(claims(aud=7)), "aud is neither"),
    "aud a list of numbers": (signed(claims(aud=[7])), "aud is neither"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_forged_or_careless_token_is_refused_with_its_reason(name: str, verifier: Callable[..., Verifier]) -> None:
    token, says = REFUSED[name]
    with pytest.raises(BadToken, match=says) as caught:
        verifier().verify(token, NOW)
    assert not isinstance(caught.value, TokenExpired)
    assert caught.value.remedy
    # The answer goes to a stranger and to logs: it repeats neither the token nor its signature.
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("token", "grant"),
    [
        (signed(GOOD), Grant(Principal("user", "alice"), NOW + 60)),
        (signed(GOOD, {"alg": "HS256"}), Grant(Principal("user", "alice"), NOW + 60)),
        (jwt.encode(GOOD, SECRET, "HS256", {"kid": "key-1"}), Grant(Principal("user", "alice"), NOW + 60)),
        (signed(claims(sub="42", exp=NOW + 0.5)), None),
        (signed(claims(sub="42", exp=NOW + 1.5)), Grant(Principal("user", "42"), NOW + 1)),
        (signed(claims(role="operator")), Grant(Principal("operator", "alice"), NOW + 60)),
        (
            signed(claims(sub="a.b+c@example.org".replace("+", "_"))),
            Grant(Principal("user", "a.b_c@example.org"), NOW + 60),
        ),
        (signed(claims(sub="auth0|x:ü y")), Grant(Principal("user", "auth0|x:ü y"), NOW + 60)),
        (signed(claims(nbf=NOW + 30, iat=NOW + 30)), Grant(Principal("user", "alice"), NOW + 60)),
        (signed(claims(iss="anyone", jti="1", channels=["x"])), Grant(Principal("user", "alice"), NOW + 60)),
        (signed(json.dumps(GOOD, indent=2).encode()), Grant(Principal("user", "alice"), NOW + 60)),
    ],
)
def test_an_honest_token_names_its_bearer(token: str, grant: Grant | None, verifier: Callable[..., Verifier]) -> None:
    if grant is None:
        with pytest.raises(TokenExpired):
            verifier().verify(token, NOW)
    else:
        found = verifier().verify(token, NOW)
        assert (found.principal, found.expires, found.key) == (grant.principal, grant.expires, "development")


def test_a_token_ends_in_the_second_of_its_exp(verifier: Callable[..., Verifier]) -> None:
    token = issue(SECRET, Principal("user", "alice"), 60, NOW)
    assert verifier().verify(token, NOW + 59.9).expires == NOW + 60
    with pytest.raises(TokenExpired, match="gateway token"):
        verifier().verify(token, NOW + 60)


@pytest.mark.parametrize("aud", ["gateway", ["other", "gateway"]])
def test_a_configured_audience_must_be_among_those_of_the_token(aud: object, verifier: Callable[..., Verifier]) -> None:
    ours = verifier(audience="gateway")
    assert ours.verify(signed(claims(aud=aud)), NOW).principal.name == "alice"
    for other in ("Gateway", "gateway2", [], ["other"], ...):
        with pytest.raises(BadToken, match="not for 'gateway'"):
            ours.verify(signed(claims(aud=other)), NOW)


def test_a_configured_issuer_must_be_that_of_the_token(verifier: Callable[..., Verifier]) -> None:
    ours = verifier(issuer="https://id.example.org")
    assert ours.verify(signed(claims(iss="https://id.example.org")), NOW).expires == NOW + 60
    for other in ("https://id.example.org/", ["https://id.example.org"], None, ...):
        with pytest.raises(BadToken, match="is not from"):
            ours.verify(signed(claims(iss=other)), NOW)


@pytest.mark.parametrize("who", [Principal("user", "alice"), Principal("viewer", "eve"), Principal("operator", "root")])
def test_what_we_issue_we_accept(who: Principal, verifier: Callable[..., Verifier]) -> None:
    token = issue(SECRET, who, 60, NOW, audience="gateway", issuer="us")
    ours = verifier(audience="gateway", issuer="us")
    assert ours.verify(token, NOW) == Grant(who, NOW + 60, "development", "", NOW)
    named = issue(SECRET, who, 60, NOW, audience="gateway", issuer="us", jti="j-1")
    assert ours.verify(named, NOW).jti == "j-1"


@pytest.mark.parametrize(
    ("who", "seconds", "says"),
    [
        (Principal(), 60, "anonymous gets no token here"),
        (Principal("device", "7"), 60, "device:7 gets no token here"),
        (Principal("user", ""), 60, "is empty"),
        (Principal("user", "a/b"), 60, "no topic level can hold"),
        (Principal("user", "\ud800"), 60, "lone surrogate"),
        (Principal("user", "alice"), 0, "cannot last 0 seconds"),
        (Principal("user", "alice"), limits.TOKEN_LIFE + 1, f"use 1 to {limits.TOKEN_LIFE}"),
    ],
)
def test_we_issue_nothing_that_we_would_refuse(who: Principal, seconds: int, says: str) -> None:
    with pytest.raises(Refused, match=says):
        issue(SECRET, who, seconds, NOW)


def test_a_first_run_makes_a_secret_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(gateway=GatewayTable(data=str(tmp_path / "data")))
    made = secret(settings)
    assert len(made) >= 32
    assert secret(settings) == made
    assert stat.S_IMODE(settings.secret_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.secret_file.parent.stat().st_mode) == 0o700
    assert os.listdir(tmp_path / "data") == ["token.secret"]
    token = issue(made, Principal("operator", "root"), 60, NOW)
    assert Verifier(settings).verify(token, NOW).principal.kind == "operator"


def test_a_secret_that_another_process_made_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token.secret"
    first = load_or_create_secret(path)
    # The look before the leap saw no file; the leap finds one.
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert load_or_create_secret(path) == first
    assert os.listdir(tmp_path) == ["token.secret"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_secret_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(SECRET)
    path.chmod(mode)
    with pytest.raises(Misconfigured, match=f"can be read by others; run: chmod 600 {path}"):
        load_secret(path)


# --- tokens of single subscriptions ---


def test_a_token_is_for_a_connection_or_for_a_subscription_and_never_for_both(
    verifier: Callable[..., Verifier],
) -> None:
    made = verifier(opens=("rooms/#", "one"))
    for channel, opens in (("rooms/1", True), ("one", True), ("one/more", False), ("rooms/+", False), ("#", False)):
        token = signed(claims(channel=channel))
        permit = made.verify_subscription(token, NOW)
        assert (permit.channel, permit.opens) == (channel, opens)
        assert permit.grant == Grant(Principal("user", "alice"), NOW + 60, "development")
        with pytest.raises(BadToken, match="is for one subscription"):
            made.verify(token, NOW)
    for wrong in (..., "", 1, None, ["rooms/1"]):
        with pytest.raises(BadToken, match="channel is absent or no text"):
            made.verify_subscription(signed(claims(channel=wrong)), NOW)
    with pytest.raises(BadToken, match="not three parts"):
        made.verify_subscription("gwk_" + "x" * 43, NOW)
    with pytest.raises(TokenExpired):
        made.verify_subscription(signed(claims(channel="rooms/1", exp=NOW)), NOW)
    with pytest.raises(Misconfigured, match="opens: filter 'a/#/b' has # before its last level"):
        verifier(opens=("a/#/b",))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has 0 bytes; use 32 to 4096 random ones"),
        (b"short\n", "has 5 bytes"),
        (b"x" * 31 + b"\n", "has 31 bytes"),
        (b"x" * 5_000, "has 4097 bytes"),
        (
            b"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n",
            "is a public key",
        ),
        (b"----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n", "is a public"),
        (b'{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}', "is a public key"),
    ],
)
def test_a_weak_or_wrong_secret_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Misconfigured, match=says):
        load_secret(path)


def test_a_secret_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    missing = Settings(tokens=TokensTable(hs256_secret_file=str(tmp_path / "none")))
    with pytest.raises(Misconfigured, match="cannot be read: No such file"):
        Verifier(missing)
    assert not (tmp_path / "none").exists()  # a named file is the operator's to make
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(Misconfigured, match="is no file"):
        load_secret(tmp_path / "pipe")
    with pytest.raises(Misconfigured, match="cannot be made"):
        secret(
            msgspec.structs.replace(missing, tokens=TokensTable(), gateway=GatewayTable(data=str(tmp_path / "pipe/x")))
        )
