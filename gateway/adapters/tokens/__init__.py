"""Who a token says its bearer is: JSON Web Tokens of the key ring, and API keys, read strictly."""

from gateway.adapters.tokens.api_keys import add_api_key, drop_api_keys, keep_api_key, load_api_key
from gateway.adapters.tokens.claims import Permit
from gateway.adapters.tokens.issued import issue
from gateway.adapters.tokens.ring import KeyRing
from gateway.adapters.tokens.secret import load_or_create_secret, load_secret, secret
from gateway.adapters.tokens.verifier import Verifier
from gateway.core.access import Grant

__all__ = [
    "Grant",
    "KeyRing",
    "Permit",
    "Verifier",
    "add_api_key",
    "drop_api_keys",
    "issue",
    "keep_api_key",
    "load_api_key",
    "load_or_create_secret",
    "load_secret",
    "secret",
]
