"""A file of API keys on a running gateway, changed by the command, with last uses in a real Redis."""

import concurrent.futures

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from dispatch.cli import keys as command
from support.gateway_live import gateway
from support.stores import Stores
from support.waiting import eventually


@pytest.fixture
def keyed(settings):
    path = f"{settings.run_dir}-keys"
    return settings.model_copy(update={"api_keys_file": path, "api_key_pepper": SecretStr("pepper")})


def run(settings, *words):
    """What a command prints."""
    environment = {
        "DISPATCH_API_KEYS_FILE": settings.api_keys_file,
        "DISPATCH_API_KEY_PEPPER": "pepper",
        "DISPATCH_REDIS_URL": settings.redis_url.get_secret_value(),
        "DISPATCH_REDIS_PREFIX": settings.redis_prefix,
    }
    done = CliRunner().invoke(command.keys, words, env=environment)
    assert done.exit_code == 0, done.output
    return done.stdout


def waiting(client, key):
    """The status of a long poll, of a task without a worker."""
    head = {"Authorization": f"Bearer {key}"}
    url = client.post("/v1/tasks", json={"type": "echo", "payload": {"message": "hi"}}, headers=head).json["statusUrl"]
    other = client.application.test_client()
    pool = concurrent.futures.ThreadPoolExecutor(1)
    return pool.submit(lambda: other.get(url, headers={**head, "Prefer": "wait=20"}).status_code)


def test_keys_come_and_go_while_the_gateway_runs(keyed):
    first = run(keyed, "new", "--id", "shop").strip()
    with gateway(keyed) as client:

        def status(key):
            return client.get("/v1/tasks", headers={"Authorization": f"Bearer {key}"}).status_code

        before = status(first)
        second = run(keyed, "new", "--id", "shop").strip()
        eventually(lambda: status(second) == 200, 2.5, "the new key is valid")
        old, _ = run(keyed, "list").splitlines()[1:]
        waits = waiting(client, first)
        eventually(lambda: 'robot_http_waiting{kind="long-poll"} 1.0' in client.get("/metrics").text, 10, "it waits")
        run(keyed, "revoke", "shop", "--key", old.split()[1])
        eventually(lambda: status(first) == 401, 2.5, "the old key is revoked")
        ended = waits.result(10)
        used = eventually(lambda: "Z  file" in run(keyed, "list"), 5, "the last use is in Redis")

    stores = Stores(keyed)
    acts = [(one.entry.verb, one.entry.target.split()[0]) for one in stores.audit.page().items]
    stores.close()

    assert (before, status(second), used, ended) == (200, 200, True, 401)
    assert acts == [("revokeApiKey", "shop"), ("newApiKey", "shop"), ("newApiKey", "shop")]
