"""The key ring: public keys by file and by key set, one algorithm each, rotated without a restart."""

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway import limits
from gateway.adapters.tokens import Verifier, issue
from gateway.core.access import Grant, Principal
from gateway.errors import BadToken, Misconfigured, TokenExpired
from gateway.settings import GatewayTable, KeyTable, Settings, TokensTable, load

NOW = 1_800_000_000
ISSUER, AUDIENCE = "https://id.example.org", "gateway"
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 60, "iat": NOW, "jti": "j-1"}
PRIVATE: dict[str, Any] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(65_537, 2_048),
}


def pem(private: Any) -> bytes:
    made: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return made


def private_pem(private: Any) -> bytes:
    made: bytes = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made


def jwk(private: Any, algorithm: str, **more: Any) -> dict[str, Any]:
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True)
    return {k: v for k, v in {**made, **more}.items() if v is not ...}


def sign(algorithm: str, claims: dict[str, Any] = CLAIMS, kid: str | None = None, key: Any = None) -> str:
    private = PRIVATE[algorithm] if key is None else key
    return jwt.encode(claims, private, algorithm, {} if kid is None else {"kid": kid})


def claims(**more: Any) -> dict[str, Any]:
    return {name: value for name, value in {**CLAIMS, **more}.items() if value is not ...}


def row(id: str, algorithm: Any, **more: Any) -> KeyTable:
    return KeyTable(id=id, algorithm=algorithm, **{"issuer": ISSUER, "audience": AUDIENCE, **more})


def settings(folder: Path, *keys: KeyTable, development: bool = False) -> Settings:
    return Settings(
        gateway=GatewayTable(data=str(folder / "data")), tokens=TokensTable(development=development, keys=keys)
    )


def ring(folder: Path, *, development: bool = False, **more: Any) -> Verifier:
    """One key of each kind, by file."""
    keys = []
    for algorithm, private in PRIVATE.items():
        file = folder / f"{algorithm}.pem"
        file.write_bytes(pem(private))
        keys.append(row(f"k-{algorithm}", algorithm, file=str(file), **more))
    return Verifier(settings(folder, *keys, development=development))


@pytest.mark.parametrize("algorithm", PRIVATE)
@pytest.mark.parametrize("named", [True, False])
def test_each_kind_of_key_vouches_for_its_tokens(algorithm: str, named: bool, tmp_path: Path) -> None:
    token = sign(algorithm, kid=f"k-{algorithm}" if named else None)
    assert ring(tmp_path).verify(token, NOW) == Grant(
        Principal("user", "alice"), NOW + 60, f"k-{algorithm}", "j-1", NOW
    )


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_key_may_be_a_jwk(algorithm: Any, tmp_path: Path) -> None:
    file = tmp_path / "key.jwk"
    file.write_text(json.dumps(jwk(PRIVATE[algorithm], algorithm)))
    verifier = Verifier(settings(tmp_path, row("k", algorithm, file=str(file))))
    assert verifier.verify(sign(algorithm, kid="k"), NOW).key == "k"


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (sign("EdDSA", kid="k-ES256"), "alg is not ES256, which its key is for"),
        (sign("EdDSA", kid="k-RS256"), "alg is not RS256"),
        (sign("EdDSA", key=ed25519.Ed25519PrivateKey.generate()), "not signed with the key"),
        (sign("ES256", key=ec.generate_private_key(ec.SECP256R1())), "not signed with the key"),
        (sign("EdDSA", kid="k-other"), "kid names no key of ours"),
        (sign("EdDSA", kid="../k-EdDSA"), "kid is no key id"),
        (sign("EdDSA", kid="/etc/passwd"), "kid is no key id"),
        (jwt.encode(CLAIMS, "x" * 64, "HS256"), "alg is not ES256 or EdDSA or RS256"),
        (jwt.encode(CLAIMS, "x" * 64, "HS256", {"kid": "k-RS256"}), "alg is not ES256 or EdDSA or RS256"),
        (jwt.encode(CLAIMS, "", "none"), "is not three parts"),
        *(
            (sign("EdDSA", claims(**{one: ...})), says)
            for one, says in (
                ("iss", "is not from"),
                ("aud", "is not for"),
                ("sub", "sub is absent"),
                ("exp", "has no exp"),
                ("jti", "has no jti"),
            )
        ),
        (sign("EdDSA", claims(jti="")), "has no jti"),
        (sign("EdDSA", claims(aud=[])), "is not for 'gateway'"),
        (sign("EdDSA", claims(aud="other")), "is not for 'gateway'"),
        (sign("EdDSA", claims(role="operator")), "vouches for no operator"),
        (sign("EdDSA", claims(exp=NOW + 2 * limits.TOKEN_LIFE)), "lasts longer"),
        (sign("EdDSA", claims(iat=NOW + 31)), "iat lies in the future"),
        (sign("EdDSA", claims(nbf=NOW + 31)), "nbf lies in the future"),
    ],
)
def test_what_a_key_does_not_vouch_for_is_refused(token: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadToken, match=says):
        ring(tmp_path).verify(token, NOW)


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_public_key_is_never_taken_for_a_secret(algorithm: str, tmp_path: Path) -> None:
    verifier = ring(tmp_path, development=True)
    public = pem(PRIVATE[algorithm])
    header, body = (
        base64.urlsafe_b64encode(json.dumps(x).encode()).rstrip(b"=")
        for x in ({"alg": "HS256", "kid": f"k-{algorithm}"}, CLAIMS)
    )
    seal = jwt.get_algorithm_by_name("HS256").sign(header + b"." + body, public)
    token = b".".join((header, body, base64.urlsafe_b64encode(seal).rstrip(b"="))).decode()
    with pytest.raises(BadToken, match=f"alg is not {algorithm}, which its key is for"):
        verifier.verify(token, NOW)


def test_roles_are_the_key_s_to_give(tmp_path: Path) -> None:
    verifier = ring(tmp_path, roles=("device", "service"))
    for role in ("device", "service"):
        token = sign("EdDSA", claims(sub="pump-7", role=role))
        assert verifier.verify(token, NOW).principal == Principal(role, "pump-7")
    with pytest.raises(BadToken, match="vouches for no user"):
        verifier.verify(sign("EdDSA"), NOW)
    with pytest.raises(BadToken, match="no device id can hold"):
        verifier.verify(sign("EdDSA", claims(sub="a:b", role="device")), NOW)


def test_an_expired_token_is_told_apart_from_a_bad_one(tmp_path: Path) -> None:
    with pytest.raises(TokenExpired):
        ring(tmp_path).verify(sign("ES256"), NOW + 60)


def test_the_development_key_stays_beside_others_and_can_be_turned_off(tmp_path: Path) -> None:
    verifier = ring(tmp_path, development=True)
    secret = (tmp_path / "data" / "token.secret").read_bytes().strip()
    token = issue(secret, Principal("operator", "root"), 60, NOW)
    assert verifier.verify(token, NOW).key == "development"
    without = tmp_path / "without"
    without.mkdir()
    with pytest.raises(BadToken, match="alg is not"):
        ring(without).verify(token, NOW)
    assert not (without / "data" / "token.secret").exists()


def test_a_pinned_hs256_key_needs_sub_and_exp_alone(tmp_path: Path) -> None:
    file = tmp_path / "s"
    file.write_bytes(b"s" * 40)
    file.chmod(0o600)
    verifier = Verifier(settings(tmp_path, KeyTable(id="sdk", algorithm="HS256", file=str(file))))
    token = jwt.encode({"sub": "42", "exp": NOW + 60}, b"s" * 40, "HS256")
    assert verifier.verify(token, NOW).principal == Principal("user", "42")
    with pytest.raises(BadToken, match="vouches for no operator"):
        verifier.verify(jwt.encode({"sub": "42", "exp": NOW + 60, "role": "operator"}, b"s" * 40, "HS256"), NOW)


@pytest.mark.parametrize(
    ("content", "algorithm"),
    [
        (b"", "EdDSA"),
        (b"no key", "EdDSA"),
        (b"{}", "EdDSA"),
        (b'{"kty":"OKP","crv":"Ed25519","x":7}', "EdDSA"),
        (pem(PRIVATE["ES256"]), "EdDSA"),
        (pem(ed448.Ed448PrivateKey.generate()), "EdDSA"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "ES256"),
        (pem(rsa.generate_private_key(65_537, 1_024)), "RS256"),  # noqa: S505 - it is the one that is refused
        (private_pem(PRIVATE["EdDSA"]), "EdDSA"),
        (json.dumps(jwk(PRIVATE["ES256"], "ES256", d="AAAA")).encode(), "ES256"),
        (json.dumps(jwk(PRIVATE["ES256"], "ES256", use="enc")).encode(), "ES256"),
        (json.dumps(jwk(PRIVATE["ES256"], "ES256", alg="ES512")).encode(), "ES256"),
        (b"-" * 20_000, "RS256"),
    ],
)
def test_a_file_that_is_no_such_key_is_refused_and_not_quoted(content: bytes, algorithm: Any, tmp_path: Path) -> None:
    file = tmp_path / "k"
    file.write_bytes(content)
    with pytest.raises(Misconfigured, match=str(file)) as caught:
        Verifier(settings(tmp_path, row("k", algorithm, file=str(file))))
    assert "PRIVATE" not in str(caught.value)


def test_a_rotated_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier, file = ring(tmp_path), tmp_path / "EdDSA.pem"
    monkeypatch.setattr(limits, "KEYS_LOOK_EVERY", 0.0)
    fresh = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(BadToken):
        verifier.verify(sign("EdDSA", key=fresh), NOW)
    _replace(file, pem(fresh))
    assert verifier.verify(sign("EdDSA", key=fresh), NOW).key == "k-EdDSA"
    with pytest.raises(BadToken, match="not signed with the key"):
        verifier.verify(sign("EdDSA"), NOW)
    before = verifier.ring.generation
    # What is no key, or not there, leaves the one that was.
    _replace(file, b"half a file")
    assert verifier.verify(sign("EdDSA", key=fresh), NOW).key == "k-EdDSA"
    file.unlink()
    assert verifier.verify(sign("EdDSA", key=fresh), NOW).key == "k-EdDSA"
    assert verifier.ring.generation == before


def _replace(file: Path, data: bytes) -> None:
    draft = file.with_suffix(".new")
    draft.write_bytes(data)
    draft.replace(file)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('id = "k"\nalgorithm = "ES512"', "algorithm is not one of EdDSA, ES256, RS256, HS256"),
        ('id = "../k"\nalgorithm = "EdDSA"\nfile = "x"', "is no key id"),
        ('id = "development"\nalgorithm = "EdDSA"\nfile = "x"', "is no key id"),
        ('id = "k"\nalgorithm = "EdDSA"', "needs a file or a jwks, and not both"),
        ('id = "k"\nalgorithm = "EdDSA"\nfile = "x"', "issuer is missing, and iss is required"),
        ('id = "k"\nalgorithm = "EdDSA"\nfile = "x"\nissuer = "i"', "audience is missing"),
        ('id = "k"\nalgorithm = "EdDSA"\njwks = "http://example.org/"', "is no address to take keys from"),
        ('id = "k"\nalgorithm = "EdDSA"\njwks = "https://u:p@example.org/"', "is no address to take keys from"),
        ('id = "k"\nalgorithm = "EdDSA"\njwks = "file:///etc/passwd"', "is no address to take keys from"),
        ('id = "k"\nalgorithm = "HS256"\njwks = "https://example.org/"', "publishes no secrets"),
        ('id = "k"\nalgorithm = "EdDSA"\nfile = "x"\nroles = []', "names nobody"),
        ('id = "k"\nalgorithm = "EdDSA"\nfile = "x"\nroles = ["root"]', "is not one of"),
        ('id = "k"\nalgorithm = "EdDSA"\nfile = "x"\nopens = ["a/#/b"]', "is no topic and no filter"),
        ('id = "k"\nalgorithm = "EdDSA"\nfile = "x"\nsecret = "x"', "secret is unknown"),
    ],
)
def test_settings_of_keys_say_what_is_wrong(table: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f"[[tokens.keys]]\n{table}\n")
    with pytest.raises(Misconfigured, match=says):
        load(str(file), {})


def test_settings_without_any_key_or_with_one_id_twice_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[tokens]\ndevelopment = false\n")
    with pytest.raises(Misconfigured, match="there is no other key"):
        load(str(file), {})
    one = '[[tokens.keys]]\nid = "k"\nalgorithm = "EdDSA"\nfile = "k.pem"\nissuer = "i"\naudience = "a"\n'
    file.write_text(one)
    assert load(str(file), {}).tokens.keys[0].file == str(tmp_path / "k.pem")
    file.write_text(one * 2)
    with pytest.raises(Misconfigured, match="is that of another key too"):
        load(str(file), {})
