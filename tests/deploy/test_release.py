"""What a release consists of: the pinned uv, the bill of materials, the audit of the packages."""

import hashlib
import http.server
import json
import os
import re
import subprocess
import threading
import tomllib

import pytest

from support import deploy

LOCKED = {each["name"]: each["version"] for each in tomllib.loads((deploy.ROOT / "uv.lock").read_text())["package"]}


def run(script, *words):
    """A script's outcome; it reaches this machine alone."""
    return subprocess.run(
        [deploy.ROOT / "scripts" / script, *words],
        env={**os.environ, "HTTPS_PROXY": "http://127.0.0.1:1", "UV_HTTP_RETRIES": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_uv_is_the_same_in_the_image_and_on_a_developers_machine():
    (image,) = re.findall(r"uv==(\S+)", (deploy.ROOT / "Dockerfile").read_text())
    done = run("uv.sh", "--version")

    assert f"version={image}\n" in (deploy.ROOT / "scripts" / "uv.sh").read_text()
    assert done.stdout.split()[1] == image, done.stderr


def test_the_bill_of_materials_has_every_package_of_the_image_with_its_hashes(tmp_path):
    done = run("sbom.sh", str(tmp_path))
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text())
    found = {each["name"]: each["version"] for each in bill["components"]}
    hashed = (tmp_path / "requirements.txt").read_text()

    assert (done.returncode, bill["bomFormat"]) == (0, "CycloneDX"), done.stderr
    assert {"flask", "celery", "redis", "gunicorn"} <= found.keys()
    assert "pytest" not in found
    assert found.items() <= LOCKED.items()
    for component in bill["components"]:
        assert all(each["hashes"] for each in component["externalReferences"]), component["name"]
        assert f"{component['name']}=={component['version']}" in hashed
    assert len(re.findall(r"^[a-z0-9].*==", hashed, re.MULTILINE)) == len(found)
    for line in (tmp_path / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest


class _Osv(http.server.BaseHTTPRequestHandler):
    """The database, which knows of a vulnerability of the packages in `bad`."""

    bad: frozenset[str] = frozenset()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        known = [{"vulns": [{"id": "TEST-1"}]} if each["package"]["name"] in self.bad else {} for each in asked]
        self._answer({"results": known})

    def do_GET(self):
        self._answer({"id": "TEST-1", "modified": "2026-01-01T00:00:00Z", "summary": "bad", "affected": []})

    def _answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def osv():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Osv) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_audit_distinguishes_no_vulnerability_some_and_no_answer(osv, monkeypatch):
    none = run("audit.sh", "--service-url", osv)
    monkeypatch.setattr(_Osv, "bad", frozenset({"amqp"}))
    some = run("audit.sh", "--service-url", osv)
    unreachable = run("audit.sh", "--service-url", "http://127.0.0.1:1")

    assert (none.returncode, "No known vulnerability" in none.stdout) == (0, True), none.stderr
    assert (some.returncode, "TEST-1" in some.stdout) == (1, True), some.stderr
    assert (unreachable.returncode, "NOTHING WAS CHECKED" in unreachable.stderr) == (2, True)
    assert "No known vulnerability" not in unreachable.stdout
