"""A certificate authority for one test run: its certificate, and the servers and clients that it signs for."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_DAY = datetime.timedelta(days=1)


class Authority:
    """Signs for a day; its own certificate is in ``file``."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("the tests' own authority")
        only_ca = x509.BasicConstraints(ca=True, path_length=0)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        made = self._begun(self._name, self._key).add_extension(only_ca, critical=True)
        certificate = made.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())
        file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def sign(self, certificate: Path, key: Path, *names: str) -> None:
        """Write a certificate of ``names`` (hosts and addresses), and its key, which is for us alone."""
        own = ec.generate_private_key(ec.SECP256R1())
        known = x509.SubjectAlternativeName([_general(name) for name in names])
        made = self._begun(_name(names[0]), own).add_extension(known, critical=False)
        made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        # Python 3.13 is strict about these (RFC 5280, 4.2.1.1).
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        signed = made.add_extension(signer, critical=False).sign(self._key, hashes.SHA256())
        certificate.write_bytes(signed.public_bytes(Encoding.PEM))
        key.touch(mode=0o600)
        key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def _begun(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
