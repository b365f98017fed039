"""``celery tasks`` on real servers: what it finds and shows, and what becomes of a submission."""

import json
import socket
import types

import pytest
from click.testing import CliRunner

import topology
from celery_app import create_celery
from dispatch.broker import provision
from dispatch.cli import tasks as module
from dispatch.config import api_keys
from dispatch.protocol import labels
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import Message
from dispatch.protocol.record import State
from dispatch.store.claims import Ticket
from support.gateway_live import running_gateway
from support.ports import free_port
from support.stores import Stores
from support.worker import running_worker

PAYLOAD = {"message": "hi", "apiKey": "hush-hush"}


@pytest.fixture(scope="module")
def world(module_settings):
    """Stores, a function that runs a command, and one that accepts a task."""
    provision.apply(topology.broker_map(module_settings), module_settings)
    stores, celery = Stores(module_settings), create_celery(module_settings)

    def run(*words, answer="", env=None):
        return CliRunner().invoke(module.tasks, words, input=answer, obj=types.SimpleNamespace(app=celery), env=env)

    def accept(principal="ada", task="echo", request_id="rq", **given):
        headers = {
            "id": new_task_id(), "task": task, "x-principal": principal, "x-request-id": request_id, "x-cycle": 0, "x-seq": 0,
            "x-attempt": 1, "x-labels": labels.written(given),
        }  # fmt: skip
        made = Message(json.dumps([[PAYLOAD], {}, {}]).encode(), headers)
        stores.tasks.accept(made, max_attempts=4, idempotency_key=None)
        return made

    yield types.SimpleNamespace(stores=stores, run=run, accept=accept, settings=module_settings)
    stores.close()


def ids(result):
    assert result.exit_code == 0, result.output
    return [json.loads(line)["taskId"] for line in result.stdout.splitlines()]


def test_tasks_of_all_principals_are_found_by_what_is_known_of_them(world):
    first, second = (
        world.accept(robot="r-1", site="x"),
        world.accept(principal="bob", robot="r-1", request_id="order-7"),
    )

    assert ids(world.run("list", "--label", "robot=r-1", "--json")) == [second.task_id, first.task_id]
    assert ids(world.run("list", "--label", "robot=r-1", "--label", "site=x", "--json")) == [first.task_id]
    assert ids(world.run("list", "--label", "robot=r-1", "--principal", "bob", "--json")) == [second.task_id]
    assert ids(world.run("list", "--request-id", "order-7", "--state", "SCHEDULED", "--json")) == [second.task_id]
    assert (
        ids(world.run("list", "--label", "robot=r-1", "--since", "1h", "--until", "0s", "--type", "echo", "--json"))[-1]
        == first.task_id
    )
    assert ids(world.run("list", "--label", "robot=r-1", "--until", "2020-01-01T00:00:00Z", "--json")) == []


def test_a_table_shows_whose_they_are_and_their_labels_and_that_there_are_more(world):
    for _ in range(3):
        world.accept(robot="r-2")
    shown = world.run("list", "--label", "robot=r-2", "--limit", "2")

    assert shown.stdout.splitlines()[0].split() == [
        "TASK", "TYPE", "STATE", "ATTEMPTS", "AGE", "PRINCIPAL", "LABELS", "ERROR",
    ]  # fmt: skip
    assert len(shown.stdout.splitlines()) == 3
    assert "ada" in shown.stdout
    assert "robot=r-2" in shown.stdout
    assert "the newest 2 of more that match" in shown.stderr
    assert world.run("list", "--label", "robot=r-none").stdout == "no tasks that match\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--label", "robot"],
        ["--label", "Robot=x"],
        ["--label", "a=1", "--label", "a=2"],
        ["--since", "yesterday"],
        ["--until", "2026-11-24T02:36:00"],
        ["--state", "DEAD"],
        ["--status", "fail"],
        ["--request-id", "a b"],
        ["--limit", "0"],
    ],
)
def test_a_wrong_filter_is_refused(world, words):
    assert world.run("list", *words).exit_code == 2


def test_a_task_is_shown_with_its_hops_and_no_payload_unless_it_is_asked_for(world):
    made = world.accept(robot="r-3")
    world.stores.claims.claim(made, Ticket("o", "f", "w@test"), 4)
    plain = world.run("show", made.task_id)
    shown = json.loads(plain.stdout)

    assert plain.exit_code == 0
    assert (shown["state"], shown["principal"], shown["labels"]) == ("RUNNING", "ada", {"robot": "r-3"})
    assert [hop["kind"] for hop in shown["hops"]] == ["accepted", "published", "started"]
    assert "payload" not in shown
    assert entries(world, made.task_id) == []


def test_a_payload_is_shown_without_its_secrets_and_its_reading_is_audited(world):
    made = world.accept()
    shown = json.loads(world.run("show", made.task_id, "--payload", "--as", "ada@home").stdout)
    (entry,) = entries(world, made.task_id)

    assert shown["payload"] == {"message": "hi", "apiKey": "[secret]"}
    assert shown["masked"] == ["/apiKey"]
    assert entry.principal.endswith("/ada@home")
    assert (entry.verb, entry.result, entry.client) == ("getTaskPayload", "ok", socket.gethostname())
    assert entry.details == {"principal": "ada"}


def entries(world, task_id):
    return [one.entry for one in world.stores.audit.page().items if one.entry.target == task_id]


def test_a_payload_that_has_left_the_record_is_null(world):
    made = world.accept()
    ticket = Ticket("o", "f", "w@test")
    world.stores.claims.claim(made, ticket, 4)
    world.stores.claims.complete(made, ticket, {"done": 1}, 4)
    shown = json.loads(world.run("show", made.task_id, "--payload").stdout)

    assert (shown["payload"], shown["masked"], shown["result"]) == (None, None, {"done": 1})
    assert entries(world, made.task_id) == []


def test_hops_are_listed_and_what_is_no_task_is_not_there(world):
    made = world.accept()
    table, lines = world.run("events", made.task_id), world.run("events", made.task_id, "--json")

    assert table.stdout.splitlines()[0].split() == ["SEQ", "AT", "HOP", "WITH"]
    assert [json.loads(line)["kind"] for line in lines.stdout.splitlines()] == ["accepted"]
    for words in (["events", new_task_id()], ["show", new_task_id()], ["show", "no id"]):
        gone = world.run(*words)

        assert (gone.exit_code, gone.stdout) == (1, "")
        assert "there is no record" in gone.stderr


def test_tasks_are_counted(world):
    world.accept(principal="counted", task="robot.clean")
    shown = json.loads(world.run("stats", "--principal", "counted", "--json").stdout)
    table = world.run("stats", "--principal", "counted").stdout

    assert (shown["counted"], shown["states"], shown["complete"]) == (1, {"SCHEDULED": 1}, True)
    assert table.splitlines()[1].split(None, 2) == ["robot.clean", "1", "1 SCHEDULED"]
    assert world.run("stats", "--principal", "none").stdout.startswith("no tasks\n")


@pytest.fixture(scope="module")
def keyed(world):
    """The address of a gateway with an API key, and that key."""
    text = api_keys.token("cli", api_keys.new_secret())
    scopes = frozenset({api_keys.TASKS_READ, api_keys.TASKS_WRITE})
    entry = str(api_keys.ApiKey("cli", api_keys.digest("pepper", text), scopes))
    port = free_port()
    environ = {"DISPATCH_API_KEYS": entry, "DISPATCH_API_KEY_PEPPER": "pepper"}
    with running_gateway(world.settings, port, environ=environ):
        yield f"http://127.0.0.1:{port}", text


def test_a_submission_goes_to_the_gateway_and_its_end_is_waited_for(world, keyed, tmp_path):
    url, key = keyed
    (file := tmp_path / "key").write_text(key + "\n")
    words = ["submit", "echo", '{"message": "hi"}', "--label", "robot=r-9", "--url", url, "--request-id", "from-cli"]
    with running_worker(world.settings, abrupt=True):
        done = world.run(*words, "--key-file", str(file), "--wait", "60", "--json")
        failed = world.run(
            "submit", "echo", "-", "--wait", "60", answer='{"message": "x", "permanent": true}',
            env={"DISPATCH_HTTP_URL": url, "KEY": key},
        )  # fmt: skip
    task = json.loads(done.stdout)

    assert done.exit_code == 0
    assert (task["status"], task["labels"], task["requestId"]) == ("SUCCESS", {"robot": "r-9"}, "from-cli")
    assert ids(world.run("list", "--label", "robot=r-9", "--principal", "cli", "--json")) == [task["taskId"]]
    assert (failed.exit_code, failed.stdout.split()[1:]) == (1, ["FAIL", "DEAD_LETTERED"])


def test_a_repeated_submission_is_the_same_task(world, keyed):
    url, key = keyed
    words = ["submit", "echo", '{"message": "hi"}', "--url", url, "--idempotency-key", "once", "--json"]
    first, again = (json.loads(world.run(*words, env={"KEY": key}).stdout) for _ in range(2))

    assert first["taskId"] == again["taskId"]


def test_a_file_of_tasks_is_submitted_and_a_repeat_submits_none_twice(world, keyed, tmp_path):
    url, key = keyed
    lines = [
        {"type": "echo", "payload": {"message": str(at)}, "options": {"labels": {"run": "7"}}} for at in range(1_203)
    ]
    (file := tmp_path / "tasks.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    words = ["submit", "--batch", str(file), "--url", url, "--idempotency-key", "run-7"]
    first, again = (world.run(*words, "--json", env={"KEY": key}) for _ in range(2))
    verdicts, repeated = ([json.loads(line) for line in each.stdout.splitlines()] for each in (first, again))
    shown = world.run(*words, env={"KEY": key}).stdout.splitlines()

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert [verdict["line"] for verdict in verdicts] == list(range(1, 2_406, 2))
    assert [one["task"]["taskId"] for one in repeated] == [one["task"]["taskId"] for one in verdicts]
    assert shown[7].split() == ["15", verdicts[7]["task"]["taskId"], "PENDING", "QUEUED"]


def test_the_tasks_of_a_file_that_are_refused_are_named(world, keyed):
    url, key = keyed
    lines = [
        '{"type": "echo", "payload": {"message": "x"}}',
        '{"type": "echo", "payload": {"message": 7}}',
        '{"type": "ecko"}',
    ]
    done = world.run("submit", "--batch", "-", "--url", url, answer="\n".join(lines), env={"KEY": key})
    accepted, mistyped, unknown = done.stdout.splitlines()

    assert done.exit_code == 1
    assert accepted.endswith("QUEUED")
    assert mistyped.startswith("2  validation-error: /payload/message")
    assert unknown.startswith("3  ")
    assert "2 refused; repeat with --idempotency-key " in done.stderr


@pytest.mark.parametrize(
    ("words", "answer", "code", "why"),
    [
        ([], "", 2, "give a TYPE"),
        (["echo", "--batch", "-"], "", 2, "give a TYPE"),
        (["--batch", "-", "--label", "a=b"], "", 2, "give a TYPE"),
        (["--batch", "-"], "{}\n[]", 2, "line 2 is no object"),
        (["--batch", "-"], "{", 2, "line 1 is no JSON"),
        (["--batch", "-"], '{"a": NaN}', 2, "line 1 is no JSON"),
        (["--batch", "-"], "", 0, ""),
        (["--batch", "-", "--url", "http://127.0.0.1:9"], "{}", 2, "repeat it with --idempotency-key"),
    ],
)
def test_what_is_no_file_of_tasks_is_refused(world, words, answer, code, why):
    done = world.run("submit", "--url", "http://127.0.0.1:9", *words, answer=answer)

    assert (done.exit_code, done.stdout) == (code, "")
    assert why in done.stderr


@pytest.mark.parametrize(
    ("words", "env", "code", "why"),
    [
        (["echo", '{"message": 7}'], {}, 1, "/payload/message"),
        (["ecko", "{}"], {}, 1, "unknown-task-type"),
        (["echo", '{"message": "hi"}'], {"KEY": ""}, 1, "unauthenticated"),
        (["echo", '{"message": "hi"}'], {"KEY": "of-another-program"}, 1, "unauthenticated"),
        (["echo", '{"message": "hi"}', "--request-id", "é"], {}, 2, "a request id"),
        (["echo", '{"message": "hi"}', "--idempotency-key", "a b"], {}, 2, "an Idempotency-Key"),
        (["echo", '{"message": "\udc80"}'], {}, 2, "no JSON"),
        (["echo", '{"message": NaN}'], {}, 2, "no JSON"),
        (["echo", "[]"], {}, 2, "no object"),
        (["echo", "{"], {}, 2, "no JSON"),
        (["echo", "{}", "--label", "a b=c"], {}, 2, "a label is key=value"),
    ],
)
def test_a_refused_submission_has_the_reason(world, keyed, words, env, code, why):
    url, key = keyed
    refused = world.run("submit", *words, "--url", url, env={"KEY": key, **env})

    assert (refused.exit_code, refused.stdout) == (code, "")
    assert why in refused.stderr


def test_without_a_gateway_that_is_named_and_answers_nothing_is_submitted(world, tmp_path):
    (empty := tmp_path / "key").write_text("hunter2\n")
    closed = f"http://127.0.0.1:{free_port()}"
    results = {
        "no address": world.run("submit", "echo", env={"DISPATCH_HTTP_URL": ""}),
        "nothing there": world.run("submit", "echo", "--url", closed),
        "no url": world.run("submit", "echo", "--url", "nonsense"),
        "no key": world.run("submit", "echo", "--url", closed, "--key-file", str(empty)),
    }

    assert {name: result.exit_code for name, result in results.items()} == dict.fromkeys(results, 2)
    assert "--url" in results["no address"].stderr
    assert f"no gateway answers at {closed}" in results["nothing there"].stderr
    assert "hunter2" not in results["no key"].output


def _audited(world, verb):
    page = world.stores.audit.page(principal=None, verb=verb, limit=9, cursor=None)
    return [(one.entry.principal.rpartition("/")[2], one.entry.target, one.entry.result) for one in page.items]


def test_a_task_is_cancelled_once_and_again_and_the_audit_log_has_it(world):
    task_id = world.accept().task_id
    first = world.run("cancel", task_id, "--as", "ops")
    again = world.run("cancel", task_id, "--as", "ops", "--json")
    retried = world.run("retry-now", task_id, "--as", "ops")
    unknown = world.run("cancel", new_task_id(), "--as", "ops")

    assert (first.exit_code, first.stdout) == (0, f"{task_id} is CANCELLED\n")
    assert json.loads(again.stdout)["state"] == "CANCELLED"
    assert (retried.exit_code, retried.stderr) == (1, f"{task_id}: the task is CANCELLED\n")
    assert unknown.exit_code == 1
    assert _audited(world, "cancelTask")[-2:] == [("ops", task_id, "ok")] * 2
    assert [result for *_, result in _audited(world, "retryTaskNow")] == ["task-terminal"]


def test_a_delayed_task_is_run_now(world):
    message = world.accept()
    world.stores.tasks.mark_published(message, queue="q", max_attempts=4, idempotency_key=None, state=State.DELAYED)
    sent = world.run("retry-now", message.task_id, "--as", "ops")
    again = world.run("retry-now", message.task_id, "--as", "ops")

    assert (sent.exit_code, sent.stdout) == (0, f"{message.task_id} is QUEUED\n")
    assert (again.exit_code, again.stderr) == (1, f"{message.task_id}: the task is QUEUED\n")
