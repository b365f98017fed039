import re

import pytest
from click.testing import CliRunner

from dispatch.cli.keys import keys as keys_command
from dispatch.config import api_keys as keys
from dispatch.config import settings
from dispatch.errors import ConfigurationError
from dispatch.gateway.http import auth
from dispatch.gateway.http.key_source import KeySource
from dispatch.telemetry import metrics
from support.cases import each
from support.gateway_fakes import FakeTasks, World, problem, record

PEPPER = "pepper"


def made(name: str, *scopes: str) -> tuple[str, str]:
    """A key, and its entry in the configuration."""
    text = keys.token(name, keys.new_secret())
    return text, str(keys.ApiKey(name, keys.digest(PEPPER, text), frozenset(scopes)))


def world(*entries: str, tasks: FakeTasks | None = None) -> World:
    return World(tasks=tasks or FakeTasks(), options={"api_keys": entries, "api_key_pepper": PEPPER})


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_an_entry_survives_the_configuration():
    entry = keys.ApiKey("shop-1", "a" * 64, frozenset({keys.TASKS_WRITE, keys.TASKS_READ}))

    assert f"shop-1:{'a' * 64}:tasks:read+tasks:write" == str(entry)
    assert entry == keys.parse(str(entry))


@each("name", ["", "a_b", "A", "-a", "a-", "x" * 33, "a b"])
def test_an_id_that_could_not_be_separated_from_the_secret_is_refused(name):
    with pytest.raises(ValueError, match="id"):
        keys.token(name, keys.new_secret())


@each(
    "text",
    [
        "",
        "a",
        f"a:{'a' * 64}",
        f"a:{'a' * 64}:",
        f"a:{'a' * 64}:tasks:fly",
        "a:xyz:tasks:read",
        f"A:{'a' * 64}:tasks:read",
        "rk_a_secretsecretsecretsecret",
    ],
)
def test_a_malformed_entry_is_refused(text):
    with pytest.raises(ValueError, match=r"must be|HMAC"):
        keys.parse(text)


def test_every_malformed_entry_is_reported_at_once_without_its_text():
    entries = ("hunter2", made("a", keys.TASKS_READ)[1], f"b:{'a' * 64}:tasks:fly")

    with pytest.raises(ConfigurationError) as caught:
        KeySource.from_settings(settings.load({}, api_keys=entries, api_key_pepper=PEPPER))

    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["entry 1", "entry 3"]
    assert "hunter2" not in str(caught.value)


def test_the_hmac_binds_the_id_and_the_pepper():
    text = keys.token("a", "s" * 43)

    assert keys.digest("p", text) != keys.digest("q", text)
    assert keys.digest("p", text) != keys.digest("p", keys.token("b", "s" * 43))


def test_a_key_opens_what_its_scopes_allow():
    key, entry = made("shop", keys.TASKS_READ)
    mine = record(principal="shop")
    client = world(entry, tasks=FakeTasks(mine)).client()

    assert client.get(f"/v1/tasks/{mine.task_id}", headers=bearer(key)).status_code == 200

    refused = client.post("/v1/tasks", json={}, headers=bearer(key))
    problem(refused, 403, "insufficient-scope")
    assert (
        refused.headers["WWW-Authenticate"]
        == 'Bearer realm="robot-dispatch", error="insufficient_scope", scope="tasks:write"'
    )


def test_a_key_whose_scope_names_types_submits_those_and_no_other():
    key, entry = made("shop", keys.TASKS_READ, "tasks:write:robot.*")
    client = world(entry).client()

    def submit(type):
        return client.post("/v1/tasks", json={"type": type, "payload": {}}, headers=bearer(key))

    refused = submit("greet")

    assert "insufficient" not in submit("robot.tidy").text
    assert "scope tasks:write:greet" in problem(refused, 403, "insufficient-scope")["detail"]
    assert refused.headers["WWW-Authenticate"].endswith('scope="tasks:write:greet"')
    problem(submit("nope"), 422, "unknown-task-type")
    assert keys.parse(entry).scopes == {keys.TASKS_READ, "tasks:write:robot.*"}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_case_insensitive(scheme):
    key, entry = made("shop", keys.TASKS_READ)

    answer = world(entry).client().get("/v1/tasks", headers={"Authorization": f"{scheme} {key}"})

    assert answer.status_code == 200


def test_without_a_key_there_is_a_challenge():
    _, entry = made("shop", keys.TASKS_READ)

    answer = world(entry).client().get("/v1/tasks")

    problem(answer, 401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="robot-dispatch"'


def test_a_wrong_key_is_refused_and_not_echoed():
    right, entry = made("shop", keys.TASKS_READ)
    client = world(entry).client()

    for wrong in (
        right + "x",
        right.replace("rk_shop", "rk_post"),
        "rk_shop_" + "x" * 43,
        "x",
        "",
        "rk_shop_é" + "x" * 43,
    ):
        answer = client.get("/v1/tasks", headers={"Authorization": f"Bearer {wrong}".encode().decode("latin-1")})
        problem(answer, 401, "unauthenticated")
        assert "invalid_token" in answer.headers["WWW-Authenticate"]
        assert not wrong or wrong not in answer.text or wrong == "x"
    problem(client.get("/v1/tasks", headers={"Authorization": f"Basic {right}"}), 401, "unauthenticated")


def test_two_entries_of_one_id_let_a_secret_be_replaced():
    old, old_entry = made("shop", keys.TASKS_READ)
    new, new_entry = made("shop", keys.TASKS_READ)
    client = world(old_entry, new_entry).client()

    assert [client.get("/v1/tasks", headers=bearer(key)).status_code for key in (old, new)] == [200, 200]


def test_a_principal_sees_its_own_tasks_only():
    key, entry = made("shop", keys.TASKS_READ)
    other = record(principal="bank")
    tasks = FakeTasks(other, record(principal="shop"))
    client = world(entry, tasks=tasks).client()

    problem(client.get(f"/v1/tasks/{other.task_id}", headers=bearer(key)), 404, "task-not-found")
    problem(client.get(f"/v1/tasks/{other.task_id}/events", headers=bearer(key)), 404, "task-not-found")
    assert [item["type"] for item in client.get("/v1/tasks", headers=bearer(key)).json["items"]] == ["greet"]
    assert tasks.listed["principal"] == "shop"


def test_health_and_docs_need_no_key():
    client = world(made("shop", keys.TASKS_READ)[1]).client()

    for path in ("/livez", "/readyz", "/openapi.json", "/docs", "/problems/task-expired"):
        assert client.get(path).status_code == 200


def test_without_keys_only_this_machine_gets_in():
    client = World().client()

    assert client.get("/v1/tasks").status_code == 200
    assert client.get("/v1/tasks", base_url="http://[::1]:8080").status_code == 200
    assert client.get("/v1/tasks", environ_base={"REMOTE_ADDR": ""}).status_code == 200


@pytest.mark.parametrize(
    ("base_url", "origin"),
    [
        ("http://localhost", "http://localhost"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://LOCALHOST:8080", "http://localhost:8080"),
    ],
)
def test_without_keys_the_gateways_own_pages_get_in(base_url, origin):
    answer = World().client().get("/v1/tasks", base_url=base_url, headers={"Origin": origin})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"environ_base": {"REMOTE_ADDR": "192.0.2.7"}}, auth.PEER),
        ({"base_url": "http://rebound.example"}, auth.HOST),
        ({"headers": {"Origin": "https://evil.example"}}, auth.ORIGIN),
        ({"headers": {"Origin": "null"}}, auth.ORIGIN),
        ({"headers": {"Origin": ""}}, auth.ORIGIN),
        ({"headers": {"Origin": "http://["}}, auth.ORIGIN),
        ({"headers": {"Origin": "http://localhost:3000"}}, auth.ORIGIN),
        ({"headers": {"Origin": "https://localhost"}}, auth.ORIGIN),
        ({"headers": {"Origin": "http://127.0.0.1"}}, auth.ORIGIN),
        ({"headers": {"Origin": "http://localhost,http://localhost"}}, auth.ORIGIN),
        ({"headers": {"Forwarded": "for=192.0.2.7"}}, auth.FORWARDED),
        ({"headers": {"Via": "1.1 proxy"}}, auth.FORWARDED),
        ({"headers": {"X-Forwarded-For": "127.0.0.1"}}, auth.FORWARDED),
        ({"headers": {"X-Forwarded-Host": ""}}, auth.FORWARDED),
        ({"headers": {"X-Forwarded-Proto": "http"}}, auth.FORWARDED),
        ({"headers": {"X-Forwarded-Port": "80"}}, auth.FORWARDED),
        ({"headers": {"X-Real-IP": "127.0.0.1"}}, auth.FORWARDED),
    ],
)
def test_without_keys_others_are_kept_out_for_a_reason_and_counted(options, reason):
    before = _refused(reason)
    body = problem(World().client().post("/v1/dead-letters/x/redrive", **options), 401, "unauthenticated")

    assert "only this machine" in body["detail"]
    assert _refused(reason) == before + 1


def test_with_keys_a_proxy_and_a_foreign_page_may_forward_a_key():
    key, entry = made("shop", keys.TASKS_READ)
    headers = {**bearer(key), "X-Forwarded-For": "192.0.2.7", "Origin": "https://shop.example"}

    assert world(entry).client().get("/v1/tasks", headers=headers).status_code == 200


@each(
    ("header", "reason"),
    [
        (None, auth.MISSING),
        ("Basic c2hvcA==", auth.MALFORMED),
        ("rk_shop_x", auth.MALFORMED),
        ("Bearer rk_shop_x", auth.UNKNOWN),
        ("Bearer", auth.UNKNOWN),
    ],
)
def test_with_keys_a_401_is_counted_by_its_reason(header, reason):
    before = _refused(reason)
    client = world(made("shop", keys.TASKS_READ)[1]).client()
    problem(client.get("/v1/tasks", headers={"Authorization": header} if header else {}), 401, "unauthenticated")

    assert _refused(reason) == before + 1


def test_every_reason_has_a_series_from_the_start():
    text = World().client().get("/metrics").text

    assert all(f'robot_http_unauthenticated_total{{reason="{reason}"}}' in text for reason in auth.REASONS)


def _refused(reason: str) -> float:
    return metrics.registry().get_sample_value("robot_http_unauthenticated_total", {"reason": reason}) or 0.0


def test_keys_new_prints_a_key_that_works(monkeypatch):
    monkeypatch.delenv("DISPATCH_API_KEYS", raising=False)
    result = CliRunner().invoke(keys_command, ["new", "--id", "shop", "--scopes", "tasks:read"])
    key, pepper, configured = result.stdout.splitlines()

    assert result.exit_code == 0
    assert re.fullmatch(r"rk_shop_[A-Za-z0-9_-]{43}", key)
    found = settings.load(dict(line.split("=", 1) for line in (pepper, configured)))
    app = World(options={"api_keys": found.api_keys, "api_key_pepper": found.api_key_pepper}).client()
    assert app.get("/v1/tasks", headers=bearer(key)).status_code == 200


def test_keys_new_extends_what_is_configured():
    _, entry = made("old", keys.TASKS_READ)
    environment = {"DISPATCH_API_KEYS": entry, "DISPATCH_API_KEY_PEPPER": PEPPER, "DISPATCH_HTTP_HOST": "0.0.0.0"}
    result = CliRunner().invoke(keys_command, ["new"], env=environment)
    key, configured = result.stdout.splitlines()

    entries = configured.removeprefix("DISPATCH_API_KEYS=").split(",")
    assert entry == entries[0]
    assert keys.digest(PEPPER, key) == keys.parse(entries[1]).digest


@pytest.mark.parametrize("arguments", [["--scopes", "tasks:fly"], ["--scopes", ""], ["--id", "Not_Usable"]])
def test_keys_new_refuses_what_the_gateway_would(arguments):
    result = CliRunner().invoke(keys_command, ["new", *arguments])

    assert result.exit_code == 2
    assert "must be" in result.output
