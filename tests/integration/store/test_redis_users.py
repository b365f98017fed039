"""The Redis users of `deploy/redis/users.conf` on a real Redis: they suffice, and a right that lacks leaves nothing half-done."""

import ast
import contextlib
import re
from urllib.parse import urlsplit

import pytest
import redis
from pydantic import SecretStr

from dispatch.errors import StoreError
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import Message
from dispatch.store.scripts import scripts
from support import servers
from support.gateway_live import gateway
from support.stores import Stores
from support.waiting import eventually
from support.worker import ROOT, running_worker

#: The rules of each user, by its name.
USERS = dict(re.findall(r"^user (\w+) (on .+)$", (ROOT / "deploy/redis/users.conf").read_text(), re.MULTILINE))

#: Commands that a connection sends by itself, and the launcher's probe.
_OF_CONNECTIONS = {"subscribe", "unsubscribe", "ping"}


@pytest.fixture
def vhost(created_vhost):
    """A worker runs here."""
    return created_vhost


@pytest.fixture
def administrator(settings):
    with contextlib.closing(redis.Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True)) as made:
        yield made


@pytest.fixture
def user(settings, administrator):
    """Makes a Redis user; the settings with which a process is that user."""
    made = []

    def make(rules):
        name = servers.unique("user")
        own = rules.replace("robot:", settings.redis_prefix).split()
        administrator.execute_command("ACL", "SETUSER", name, *own, ">pw")
        made.append(name)
        url = urlsplit(settings.redis_url.get_secret_value())
        there = f"redis://{name}:pw@{url.hostname}:{url.port}{url.path}"
        return settings.model_copy(update={"redis_url": SecretStr(there)})

    yield make
    administrator.execute_command("ACL", "DELUSER", *made)


def commands_in_the_code(administrator):
    """Those of the scripts, and those that modules run as tuples of words, or as `vital` ones."""
    found = {name for script in scripts().values() for name in re.findall(r"redis\.call\('([A-Z]+)'", script.source)}
    for path in (ROOT / "dispatch").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Tuple) and node.elts and isinstance(node.elts[0], ast.Constant):
                found.add(node.elts[0].value)
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "vital":
                found.add(node.args[0].value)
    known = {name.lower() for name in administrator.eval("return redis.call('COMMAND', 'LIST')", 0)}
    return known & {word.lower() for word in found if isinstance(word, str) and word.isupper()}


def test_a_process_may_run_what_the_code_runs_and_nothing_else(administrator):
    allowed = {name: {rule[1:] for rule in rules.split() if rule.startswith("+")} for name, rules in USERS.items()}
    used = commands_in_the_code(administrator)

    assert (allowed["gateway"] - used, used - allowed["gateway"]) == (_OF_CONNECTIONS, set())
    assert allowed["gateway"] - allowed["worker"] == {"hscan", "subscribe", "unsubscribe", "xrevrange"}
    assert allowed["worker"] - allowed["gateway"] == set()


def test_a_gateway_and_a_worker_do_all_they_do_with_their_own_users(user, administrator):
    theirs, workers = user(USERS["gateway"]), user(USERS["worker"])
    body = {"type": "echo", "payload": {"message": "no", "permanent": True}}
    with gateway(theirs) as client, running_worker(workers, abrupt=True):
        keyed = {"Idempotency-Key": "k"}
        task = client.post(
            "/v1/tasks", json={"type": "echo", "payload": {"message": "x", "failTimes": 1}}, headers=keyed
        )
        seen = client.get(task.json["statusUrl"], headers={"Prefer": "wait=20"})
        eventually(lambda: client.get(task.json["statusUrl"]).json["status"] == "SUCCESS", 20, "it succeeds")
        url = f"/v1/dead-letters/{client.post('/v1/tasks', json=body).json['taskId']}"
        eventually(lambda: client.get(url).status_code == 200, 10, "it dies")
        redriven = client.post(f"{url}/redrive")
        eventually(lambda: client.get(url).json.get("cycle") == 1, 10)
        client.post("/v1/dead-letters/redrive", json={})
        eventually(lambda: client.get(url).json.get("cycle") == 2, 10)
        discarded = client.delete(url)
        eventually(lambda: client.get("/v1/workers").json["items"], 10)
        listed = [
            client.get(path).status_code for path in ("/v1/tasks?type=echo", "/v1/dead-letters", task.json["eventsUrl"])
        ]
        verbs = [one["verb"] for one in client.get("/v1/audit").json["items"]]

    assert (seen.headers["Preference-Applied"], redriven.status_code, discarded.status_code) == ("wait=20", 202, 204)
    assert listed == [200, 200, 200]
    assert {"redriveDeadLetter", "redriveDeadLetters", "discardDeadLetter"} == set(verbs)
    assert _denied(administrator, theirs, workers) == []


@pytest.mark.parametrize(
    ("lacks", "reason"), [("resetchannels", "PUBLISH on the channel"), ("-hset", "hset"), ("-del -exists", "e")]
)
def test_a_right_that_lacks_leaves_no_half_of_a_transition(user, administrator, lacks, reason):
    stores = Stores(user(f"{USERS['worker']} {lacks}"))
    message = Message(b'[[{"message": "x"}], {}, {}]', {"id": new_task_id(), "task": "echo", "x-principal": "ada"})
    with contextlib.closing(stores), pytest.raises(StoreError, match="nothing was written") as caught:
        stores.tasks.accept(message, max_attempts=4, idempotency_key=None)

    assert reason in str(caught.value).lower().replace("publish", "PUBLISH")
    assert administrator.exists(*stores.redis.keys.task(message.task_id)) == 0


@pytest.mark.parametrize(
    "command",
    [("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("GET", "of-others"), ("ACL", "LIST"), ("SCRIPT", "FLUSH")],
)
def test_what_a_process_does_not_need_it_may_not(user, command):
    for rules in USERS.values():
        stores = Stores(user(rules))
        with contextlib.closing(stores), pytest.raises(StoreError, match=r"(?i)perm"):
            stores.redis.run(command)


def _denied(administrator, *those):
    """What Redis has refused to these users."""
    names = {urlsplit(one.redis_url.get_secret_value()).username for one in those}
    return [entry["object"] for entry in administrator.acl_log() if entry["username"] in names]
