"""HTTPS of the gateway: which clients are admitted, what a renewed certificate needs, and that a slow handshake costs no other client time."""

import contextlib
import shutil
import socket
import ssl
import time
from pathlib import Path

import httpx
import pytest

from support.certificates import Authority
from support.gateway_live import running_gateway
from support.ports import free_port
from support.waiting import eventually

BODY = {"type": "echo", "payload": {"message": "hi"}}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("https"), "https")


@pytest.fixture(scope="module")
def files(authority, tmp_path_factory):
    """The files that the gateway's settings name; a test may replace them."""
    directory = tmp_path_factory.mktemp("served")
    put(authority.issue("127.0.0.1"), directory)
    return directory


def put(certificate, directory):
    """As a tool that renews certificates: each file is replaced as a whole, one after the other."""
    for source, name in ((certificate.cert, "cert.pem"), (certificate.key, "key.pem")):
        shutil.copy(source, directory / f"{name}.new")
        (directory / f"{name}.new").replace(directory / name)


@pytest.fixture(scope="module")
def port(module_settings, authority, files):
    own = module_settings.model_copy(
        update={
            "http_tls_cert": str(files / "cert.pem"),
            "http_tls_key": str(files / "key.pem"),
            "http_workers": 1,
            "http_head_timeout": 1.0,
            "http_peer_connections": 60,
        }
    )
    number = free_port()
    with running_gateway(own, number, ca=authority.ca):
        yield number


def client(port, authority, **options):
    context = ssl.create_default_context(cafile=authority.ca)
    return httpx.Client(base_url=f"https://127.0.0.1:{port}", timeout=10, trust_env=False, verify=context, **options)


def test_a_task_is_submitted_and_browsers_keep_to_https(port, authority):
    with client(port, authority) as https:
        accepted = https.post("/v1/tasks", json=BODY)
        read = https.get(accepted.json()["statusUrl"])

    assert (accepted.status_code, read.status_code) == (202, 200)
    assert {answer.headers["Strict-Transport-Security"] for answer in (accepted, read)} == {"max-age=31536000"}


def test_an_old_protocol_another_authority_and_plain_http_are_refused(port, authority, tmp_path):
    old = ssl.create_default_context(cafile=authority.ca)
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.deprecated_call():
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    for context in (old, ssl.create_default_context(cafile=Authority(tmp_path, "other").ca)):
        with socket.create_connection(("127.0.0.1", port), 5) as raw, pytest.raises(ssl.SSLError):
            context.wrap_socket(raw, server_hostname="127.0.0.1")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False)
    with client(port, authority) as https:
        assert https.get("/livez").status_code == 200


def test_handshakes_that_never_end_are_cut_and_delay_no_other(port, authority):
    with contextlib.ExitStack() as stack, client(port, authority) as https:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 5)) for _ in range(50)]
        for connection in slow[::2]:
            connection.sendall(b"\x16\x03\x01\x02\x00")  # the begin of a ClientHello
        began = time.monotonic()
        assert https.get("/livez").status_code == 200
        assert time.monotonic() - began < 3
        for connection in slow:
            connection.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        metrics = https.get("/metrics").text

    assert 'robot_http_connections_cut_total{reason="tls"}' in metrics


def test_a_head_that_never_ends_is_answered_408_and_a_large_body_is_drained(port, authority):
    context = ssl.create_default_context(cafile=authority.ca)
    with (
        socket.create_connection(("127.0.0.1", port), 5) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1", suppress_ragged_eofs=True) as slow,
    ):
        slow.sendall(b"POST /v1/tasks HTTP/1.1\r\n")
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
    with client(port, authority) as https:
        for _ in range(3):
            assert https.post("/v1/tasks", content=b"x" * 400_000).status_code in {413, 415}
        assert https.post("/v1/tasks", json=BODY).status_code == 202


def test_a_renewed_certificate_is_used_without_a_restart(port, authority, files, module_settings):
    log = Path(module_settings.run_dir) / "gateway.log"

    def served():
        pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=5)
        return ssl.PEM_cert_to_DER_cert(pem)

    before = served()
    (files / "cert.pem").write_text("half a certificate")  # in the middle of a renewal
    eventually(lambda: served() and "certificate not reloaded" in log.read_text(), 5, "it has looked at the files")
    assert served() == before
    put(authority.issue("127.0.0.1"), files)
    eventually(lambda: served() != before, 5, "the new certificate is served")


def test_clients_without_a_certificate_are_refused_where_one_is_asked_for(module_settings, authority):
    files, mine = authority.issue("127.0.0.1"), authority.issue("a-client")
    own = module_settings.model_copy(
        update={
            "http_tls_cert": files.cert,
            "http_tls_key": files.key,
            "http_tls_client_ca": authority.ca,
            "http_workers": 1,
            "http_hsts": 0,
        }
    )
    number = free_port()
    with running_gateway(own, number, ca=authority.ca, certificate=mine):
        context = ssl.create_default_context(cafile=authority.ca)
        context.load_cert_chain(mine.cert, mine.key)
        with httpx.Client(verify=context, trust_env=False) as known:
            answer = known.get(f"https://127.0.0.1:{number}/livez")
        with client(number, authority) as unknown, pytest.raises(httpx.TransportError):
            unknown.get("/livez")

    assert answer.status_code == 200
    assert "Strict-Transport-Security" not in answer.headers
