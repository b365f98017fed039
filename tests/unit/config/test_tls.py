"""TLS settings: files are checked at start, and each problem names its variable."""

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from dispatch.config import tls
from dispatch.config.settings import load
from dispatch.errors import ConfigurationError
from support.cases import each
from support.certificates import Authority

SERVERS = {
    "broker": {"DISPATCH_BROKER_URL": "amqps://u:hush@h/v"},
    "redis": {"DISPATCH_REDIS_URL": "rediss://u:hush@h"},
}


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "ours")


def problem(server, **files):
    with pytest.raises(ConfigurationError) as caught:
        load(
            {
                **SERVERS[server],
                **{f"DISPATCH_{server.upper()}_TLS_{name.upper()}": path for name, path in files.items()},
            }
        )
    assert "hush" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("server", SERVERS)
def test_files_that_fit_are_accepted(server, authority, tmp_path):
    client = authority.issue("client")
    both = tmp_path / "both.pem"
    both.write_text("".join(Path(path).read_text() for path in (client.cert, client.key)))
    prefix = f"DISPATCH_{server.upper()}_TLS_"

    load({**SERVERS[server], f"{prefix}CA": authority.ca, f"{prefix}CERT": client.cert, f"{prefix}KEY": client.key})
    made = load({**SERVERS[server], f"{prefix}CERT": str(both)})

    assert getattr(made, f"{server}_tls").context().check_hostname
    assert getattr(made, f"{server}_tls").context().minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("server", SERVERS)
def test_a_file_that_does_not_fit_is_refused_by_the_name_of_its_variable(server, authority, tmp_path):
    client, other = authority.issue("client"), authority.issue("other")
    prefix, nothing = f"DISPATCH_{server.upper()}_TLS_", str(tmp_path / "nothing.pem")

    assert problem(server, ca=nothing) == f"{prefix}CA: {nothing}: No such file or directory"
    assert problem(server, ca=client.key) == f"{prefix}CA: {client.key}: has no certificate in PEM form"
    assert problem(server, cert=nothing, key=client.key) == f"{prefix}CERT: {nothing}: No such file or directory"
    assert problem(server, key=client.key) == f"{prefix}KEY: needs {prefix}CERT, the certificate that belongs to it"
    assert problem(server, cert=client.cert) == f"{prefix}KEY: is needed: {client.cert} has no key"
    assert (
        problem(server, cert=client.cert, key=other.key)
        == f"{prefix}KEY: {other.key}: is not the key of {prefix}CERT, or is encrypted"
    )


def test_an_encrypted_key_is_refused_and_nothing_asks_for_its_password(authority, tmp_path):
    client = authority.issue("client")
    key = serialization.load_pem_private_key(Path(client.key).read_bytes(), None)
    locked = tmp_path / "locked.pem"
    encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked.write_bytes(key.private_bytes(encoding, private, serialization.BestAvailableEncryption(b"hush")))

    assert "or is encrypted" in problem("broker", cert=client.cert, key=str(locked))


@each(
    ("environ", "wrong"),
    [
        (
            {"DISPATCH_BROKER_URL": "amqps://a/v;amqp://b/v"},
            "DISPATCH_BROKER_URL: must all be with TLS, or all without",
        ),
        ({"DISPATCH_BROKER_URL": "amqps://a/v?ssl_cert_reqs=none"}, "DISPATCH_BROKER_URL: takes no ssl options"),
        ({"DISPATCH_BROKER_URL": "amqp://a/v?ssl="}, "DISPATCH_BROKER_URL: takes no ssl options"),
        ({"DISPATCH_BROKER_TLS_SERVER_NAME": "rabbit"}, "DISPATCH_BROKER_TLS_* have no effect"),
        ({"DISPATCH_BROKER_TLS_SERVER_NAME": "a b", **SERVERS["broker"]}, "DISPATCH_BROKER_TLS_SERVER_NAME: String"),
    ],
)
def test_what_would_be_without_verification_is_refused(environ, wrong):
    with pytest.raises(ConfigurationError) as caught:
        load(environ)

    assert wrong in str(caught.value)


def test_certificates_beside_plain_urls_are_refused(authority):
    assert "DISPATCH_REDIS_TLS_* have no effect" in _plain(authority, "redis")
    assert "DISPATCH_BROKER_TLS_* have no effect" in _plain(authority, "broker")
    load({"DISPATCH_BROKER_TLS_CA": authority.ca, "DISPATCH_MANAGEMENT_URL": "https://h"})
    load({"DISPATCH_BROKER_TLS_CA": authority.ca, "DISPATCH_REPLAY_BROKER_URL": "amqps://h/v"})


def _plain(authority, server):
    with pytest.raises(ConfigurationError) as caught:
        load({f"DISPATCH_{server.upper()}_TLS_CA": authority.ca})
    return str(caught.value)


def test_the_reason_is_found_below_other_errors():
    inner = ssl.SSLCertVerificationError()
    inner.verify_message = "certificate has expired"
    outer = RuntimeError("amqps://u:hush@h")
    outer.__cause__ = OSError("x")
    outer.__cause__.__context__ = inner
    loop = RuntimeError()
    loop.__context__ = ValueError()
    loop.__context__.__context__ = loop

    assert tls.refusal(outer) == "its certificate was refused: certificate has expired"
    assert tls.refusal(OSError("connection refused")) == tls.refusal(None) == tls.refusal(loop) == ""
