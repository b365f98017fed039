"""TLS of the connections to RabbitMQ and Redis: which authorities a client trusts, what it presents, what it refused and why.

A client always verifies the server's chain and name, with TLS 1.2 at least; the settings choose the authorities.
"""

from __future__ import annotations

import dataclasses
import ssl

#: The oldest protocol that a connection may agree on.
OLDEST = ssl.TLSVersion.TLSv1_2


@dataclasses.dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM form, by path; empty ones are unset."""

    ca: str = ""  #: authorities; the system's by default
    cert: str = ""  #: the client's certificate
    key: str = ""  #: its key; may be in the file of the certificate
    server_name: str = ""  #: name that the server's certificate must have; by default the host of the URL

    def context(self) -> ssl.SSLContext:
        """A client's context, which verifies chain and name.

        Raises:
            OSError: a file can't be read, or is not what it should be.
        """
        context = ssl.create_default_context(cafile=self.ca or None)
        context.minimum_version = OLDEST
        if self.cert:
            context.load_cert_chain(self.cert, self.key or None, password=_none)
        return context


@dataclasses.dataclass(frozen=True, slots=True)
class BrokerAddress:
    """RabbitMQ's AMQP port as one role reaches it."""

    urls: str = dataclasses.field(repr=False)  #: one, or several separated by ``;``, tried in turn
    tls: Tls = Tls()  #: of those that are ``amqps``

    def each(self) -> list[BrokerAddress]:
        """One for each URL."""
        return [BrokerAddress(url, self.tls) for url in self.urls.split(";")]


#: Where to connect. A bare URL is verified against the system's authorities.
Where = BrokerAddress | str


def check_authorities(path: str) -> None:
    """Refuse a file that is no list of authorities.

    Args:
        path: the file; empty is unset.

    Raises:
        ValueError: what is wrong with it.
    """
    if path:
        try:
            ssl.create_default_context(cafile=path)
        except OSError as exc:
            raise ValueError(_problem(path, exc, "has no certificate in PEM form")) from exc


def check_readable(path: str) -> None:
    """Refuse a file that can't be read; raises ValueError. Empty is unset."""
    if path:
        try:
            with open(path, "rb"):  # noqa: PTH123 - only opened
                pass
        except OSError as exc:
            raise ValueError(_problem(path, exc, "")) from exc


def check_pair(cert: str, key: str, cert_setting: str) -> None:
    """Refuse a client's certificate and key that do not belong together, or of which one is missing.

    Args:
        cert: the certificate's file; empty is unset.
        key: the key's file; empty is unset, and the certificate's file then has the key.
        cert_setting: name of the certificate's setting, for the message.

    Raises:
        ValueError: what is wrong with them.
    """
    if key and not cert:
        raise ValueError(f"needs {cert_setting}, the certificate that belongs to it")
    if cert:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key or None, password=_none)
        except OSError as exc:
            wrong = f"is not the key of {cert_setting}, or is encrypted" if key else f"is needed: {cert} has no key"
            raise ValueError(_problem(key or cert, exc, wrong) if key else wrong) from exc


def refusal(exc: BaseException | None) -> str:
    """Why TLS failed, from an error or from what caused it.

    Args:
        exc: any error.

    Returns:
        The reason, without a secret; empty when TLS was not the reason.
    """
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        if isinstance(exc, ssl.SSLCertVerificationError):
            return f"its certificate was refused: {exc.verify_message.rstrip('.')}"
        if isinstance(exc, ssl.SSLError) and exc.reason:
            return f"TLS failed: {exc.reason.lower().replace('_', ' ')}"
        seen.add(id(exc))
        exc = exc.__cause__ or exc.__context__
    return ""


def _none() -> str:
    """The password of an encrypted key: without this, OpenSSL would ask for it on the terminal."""
    return ""


def _problem(path: str, exc: OSError, wrong: str) -> str:
    """The operating system's reason, or what OpenSSL's means."""
    return f"{path}: {wrong if isinstance(exc, ssl.SSLError) else exc.strerror or exc}"
