"""What gunicorn's master does before it binds the gateway's address."""

import sys
from types import SimpleNamespace

from dispatch.gateway import gunicorn_conf


def test_the_application_is_imported_before_the_address_is_bound(tmp_path, monkeypatch):
    (tmp_path / "an_application.py").write_text("def create(): raise AssertionError('only workers make it')")
    monkeypatch.syspath_prepend(str(tmp_path))
    server = SimpleNamespace(app=SimpleNamespace(app_uri="an_application:create()"))

    gunicorn_conf.on_starting(server)
    gunicorn_conf.on_exit(server)

    assert sys.modules.pop("an_application").__file__ == str(tmp_path / "an_application.py")
