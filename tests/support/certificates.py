"""Certificates for tests: an authority of its own, and what it signs."""

import dataclasses
import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)

_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A certificate and its key, in files that a server's own user may read."""

    cert: str
    key: str


class Authority:
    """Signs certificates.

    Args:
        directory: for its files.
        name: of the authority, and of its files.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _named(name)
        self._issued = 0
        own = self._builder(name, self._key, expired=False)
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        own = own.add_extension(_SIGNS, critical=True)
        self._certificate = own.sign(self._key, hashes.SHA256())
        self.ca = str(directory / f"{name}-ca.pem")
        _write(Path(self.ca), self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, *names: str, expired: bool = False) -> Certificate:
        """A certificate for hosts or addresses.

        Args:
            names: host names and IP addresses.
            expired: since yesterday.
        """
        self._issued += 1
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(names[0], key, expired=expired)
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        base = self._directory / f"{self._name}-{self._issued}"
        made = Certificate(f"{base}.pem", f"{base}-key.pem")
        _write(Path(made.cert), signed.public_bytes(serialization.Encoding.PEM))
        _write(Path(made.key), _pem(key))
        return made

    def _builder(self, name: str, key: ec.EllipticCurvePrivateKey, *, expired: bool) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder().subject_name(_named(name)).issuer_name(self._subject)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        # Python 3.13 and later verify strictly: without these identifiers nothing is accepted.
        own, above = key.public_key(), self._key.public_key()
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(own), critical=False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above), critical=False)
        return builder.not_valid_before(now - 3 * _DAY).not_valid_after(now - _DAY if expired else now + _DAY)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, private, serialization.NoEncryption())


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
