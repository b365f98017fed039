"""``celery dlq`` on real servers: what it shows, asks, does, and leaves in the audit log."""

import json
import os
import pwd
import socket
import types

import pytest
from click.testing import CliRunner

import topology
from celery_app import create_celery
from dispatch.broker import provision
from dispatch.broker.publisher import Publisher
from dispatch.cli import dlq as module
from dispatch.deadletters.bulk import BulkRedrive
from dispatch.errors import DispatchError
from dispatch.protocol.copies import dead_copy
from dispatch.protocol.dead_letters import DeadLetterFilter, Reason
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import Message
from support.stores import Stores


class BrokerGone(DispatchError):
    """RabbitMQ is away."""


@pytest.fixture
def world(module_settings):
    """Stores, a function that runs a command, and one that puts a dead letter into the DLQ."""
    provision.apply(topology.broker_map(module_settings), module_settings)
    stores, publisher = Stores(module_settings), Publisher(module_settings.broker("gateway"), timeout=5)
    celery = create_celery(module_settings)

    def run(*words, answer=""):
        return CliRunner().invoke(module.dlq, words, input=answer, obj=types.SimpleNamespace(app=celery))

    def dead(
        error_type, reason=Reason.PERMANENT, payload=b'{"message": "x"}', task="echo", recorded=False, text="no way"
    ):
        message = Message(b"[[%s], {}, {}]" % payload, {"id": new_task_id(), "task": task})
        copy = dead_copy(message, reason, text, error_type=error_type)
        publisher.publish(copy.message, copy.exchange, copy.routing_key)
        if recorded:
            stores.dead_letters.record(copy.message, reason=reason, max_attempts=4)
        return message.task_id

    yield types.SimpleNamespace(stores=stores, run=run, dead=dead)
    publisher.close()
    stores.close()


def entries(world, **wanted):
    """The latest entries, oldest first, and how many there are in all."""
    return [one.entry for one in world.stores.audit.page(**wanted).items][::-1]


def test_a_verb_on_one_dead_letter_has_one_entry(world):
    task_id = world.dead("one")
    done = [world.run(*words) for words in (["discard", task_id], ["redrive", task_id], ["discard", "absent"])]
    found = entries(world, principal=f"cli:{pwd.getpwuid(os.getuid()).pw_name}", limit=3)

    assert [result.exit_code for result in done] == [0, 1, 1]
    assert [(one.verb, one.target, one.result, one.phase, dict(one.details)) for one in found] == [
        ("discardDeadLetter", task_id, "ok", "", {"discarded": 1}),
        ("redriveDeadLetter", task_id, "nothing-found", "", {}),
        ("discardDeadLetter", "absent", "nothing-found", "", {}),
    ]
    assert {one.client for one in found} == {socket.gethostname()}


def test_many_have_a_begin_and_an_end_and_the_name_that_was_given(world, monkeypatch):
    monkeypatch.setenv("USER", "somebody-else")
    for _ in range(2):
        world.dead("many")
    redriven = world.run("--as", "ada@ops", "redrive", "--error-type", "many", "--yes")
    discarded = world.run("--as", "ada@ops", "discard", "--error-type", "many", "--yes")
    found = entries(world, limit=4)

    assert (redriven.exit_code, discarded.exit_code) == (0, 0), redriven.output + discarded.output
    assert [(one.verb, one.target, one.result, one.phase, dict(one.details)) for one in found] == [
        ("redriveDeadLetters", "errorType=many", "ok", "begin", {}),
        ("redriveDeadLetters", "errorType=many", "ok", "end", {"sent": 2}),
        ("discardDeadLetters", "errorType=many", "ok", "begin", {}),
        ("discardDeadLetters", "errorType=many", "ok", "end", {}),
    ]
    assert {one.principal for one in found} == {f"cli:{pwd.getpwuid(os.getuid()).pw_name}/ada@ops"}


def test_what_is_cut_off_is_marked(world, monkeypatch):
    def fail(*_, **__):
        raise BrokerGone("gone")

    monkeypatch.setattr(module, "discard_matching", fail)
    done = world.run("discard", "--all", "--yes")
    begin, end = entries(world, limit=2)

    assert done.exit_code == 2
    assert [(one.phase, one.result) for one in (begin, end)] == [("begin", "ok"), ("end", "BrokerGone")]


def test_a_group_is_redriven_and_discarded_as_a_whole(world):
    texts = ["robot R-1 is away", "robot R-2 is away", "robot R-3 is broken"]
    ids = [world.dead("group", text=text, recorded=True) for text in texts]
    grouped = [json.loads(line) for line in world.run("groups", "--error-type", "group", "--json").output.splitlines()]
    table = world.run("groups", "--error-type", "group").output
    away, broken = (group["fingerprint"] for group in grouped)
    listed = world.run("list", "--fingerprint", away, "--json").output.splitlines()
    redriven = world.run("redrive", "--fingerprint", away, "--type", "echo", "--yes", "--json").output.splitlines()
    discarded = world.run("discard", "--fingerprint", broken, "--yes", "--json").output.splitlines()

    assert [(group["count"], group["exampleTaskId"]) for group in grouped] == [(2, ids[1]), (1, ids[2])]
    assert [line.split()[0] for line in table.splitlines()] == ["COUNT", "2", "1"]
    assert [{json.loads(line)["taskId"] for line in lines} for lines in (listed, redriven, discarded)] == [
        {*ids[:2]}, {*ids[:2]}, {ids[2]}
    ]  # fmt: skip
    assert entries(world, limit=1)[0].target == f"fingerprint={broken}"


def test_a_dead_letter_is_mended_and_what_is_wrong_with_a_payload_is_shown(world, tmp_path):
    task_id, file = world.dead("mend"), tmp_path / "payload.json"
    file.write_text('{"message": "mended"}')

    def mend(payload, *words, task=task_id):
        return world.run("redrive", task, "--payload", "-", *words, answer=payload)

    wrong = [mend(text) for text in ('{"massage": "x"}', "nonsense", "[]", '{"message": "[secret]"}', " " * 300_000)]
    many = world.run("redrive", "--error-type", "mend", "--payload", str(file))
    sent = world.run("redrive", task_id, "--payload", str(file), "--fresh")
    stored = world.stores.tasks.whole(task_id)

    assert [result.exit_code for result in (*wrong, many, sent)] == [1, 1, 1, 1, 1, 2, 0]
    assert ["/massage" in wrong[0].output, "no JSON" in wrong[1].output, "secret at /message" in wrong[3].output] == [
        True
    ] * 3
    assert (json.loads(stored.message.body)[0], stored.cycle) == ([{"message": "mended"}], 1)
    assert stored.message.headers["x-effect-key"] == f"{task_id}.1"
    assert [hop["payloadEdited"] for hop in world.stores.tasks.hops(task_id) if hop["kind"] == "redriven"] == [True]
    assert [(one.result, dict(one.details)) for one in entries(world, limit=2)] == [
        ("PayloadRefused", {"payloadEdited": True}), ("ok", {"payloadEdited": True, "fresh": True, "sent": 1})
    ]  # fmt: skip


def test_an_audit_log_that_fails_stops_no_verb_and_is_pointed_out(world):
    key = world.stores.redis.keys.audit
    world.stores.redis.run(("DEL", key), ("SET", key, "not a stream"))
    done = world.run("discard", "--all", "--yes")
    world.stores.redis.run(("DEL", key))

    assert (done.exit_code, done.stdout.splitlines()[-1].endswith(" discarded")) == (0, True)
    assert done.stderr.count("Redis did not take the audit entry") == 2


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 65, "a\nb"])
def test_a_name_that_could_be_read_as_another_is_refused(world, name):
    done = world.run("--as", name, "discard", "absent")

    assert (done.exit_code, "--as" in done.stderr) == (2, True)


@pytest.fixture
def three(world):
    """The ids of three dead letters, two of them of robots, with an error type of their own, which is first."""
    world.run("discard", "--all", "--yes")
    own = f"e-{new_task_id()}"
    ids = [world.dead(own, recorded=True)]
    for robot in (b"R-1", b"R-2"):
        payload = b'{"robot": "%s"}' % robot
        ids.append(world.dead(own, Reason.RETRIES_EXHAUSTED, payload, "robot.clean", recorded=True))
    return own, *ids


def lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_list_has_the_robot_and_the_error_and_names_what_it_leaves_out(world, three, monkeypatch):
    own, *ids = three
    whole, part = world.run("list"), world.run("list", "--limit", "1")
    monkeypatch.setenv("COLUMNS", "90")
    narrow = world.run("list").stdout.splitlines()
    shown = {line["taskId"]: (line["robot"], line["deadReason"]) for line in lines(world.run("list", "--json"))}

    assert [head in whole.stdout for head in ("ROBOT", "R-1", f"{own}: no way", "retries-exhausted")] == [True] * 4
    assert "the newest 1 of more: --limit shows them" in part.stderr
    assert all(any(line.startswith(each) for line in narrow) for each in ids)
    assert [line[:4] for line in narrow[1::2]][1:] == ["  e-"] * 3  # the error has a line of its own
    assert shown == {
        ids[0]: (None, "permanent"),
        ids[1]: ("R-1", "retries-exhausted"),
        ids[2]: ("R-2", "retries-exhausted"),
    }


def test_show_has_the_headers_that_the_letter_died_with(world, three):
    _, task_id, *_ = three
    shown = json.loads(world.run("show", task_id).stdout)
    absent = world.run("show", new_task_id())

    assert shown["letter"]["headers"]["x-dead-reason"] == "permanent"
    assert shown["letter"]["headers"]["x-last-error"] == "no way"
    assert shown["letter"]["routingKey"].startswith("robot.task.dispatch")
    assert (absent.exit_code, absent.stderr[:34]) == (1, "dlq: there is no dead letter of ta")


def test_a_letter_that_redis_has_forgotten_is_shown_all_the_same(world, three):
    _, task_id, *_ = three
    key = world.stores.redis.keys.task(task_id)
    world.stores.redis.run(("DEL", key.record), ("DEL", key.message))
    shown = json.loads(world.run("show", task_id).stdout)

    assert (shown["taskId"], shown["letter"]["headers"]["x-dead-reason"]) == (task_id, "permanent")


def test_many_are_counted_before_a_person_is_asked(world, three, monkeypatch):
    own, *ids = three
    no_terminal = world.run("redrive", "--error-type", own)
    monkeypatch.setattr(module, "asks", lambda: True)
    refused = world.run("discard", "--error-type", own, answer="n\n")
    silent = world.run("discard", "--error-type", own)
    nothing = world.run("redrive", "--error-type", "no-such")
    agreed = world.run("redrive", "--error-type", own, answer="y\n")

    assert (no_terminal.exit_code, "give --yes" in no_terminal.stderr) == (2, True)
    assert "3 dead letters: 2 retries-exhausted, 1 permanent. Discard? [y/N]" in refused.stderr
    assert (refused.exit_code, silent.exit_code, refused.stdout) == (1, 1, "")
    assert (nothing.exit_code, nothing.stdout) == (0, "no dead letters match\n")
    assert (agreed.exit_code, agreed.stdout.splitlines()[-1]) == (0, "3 redriven"), agreed.output
    assert {world.stores.tasks.get(each).cycle for each in ids} == {1}


def test_a_dry_run_changes_nothing_and_counts_also_what_redis_has_forgotten(world, three):
    own, first, *_ = three
    known = world.run("redrive", "--error-type", own, "--dry-run")
    one = world.run("discard", first, "--dry-run")
    world.dead(own)
    counted = lines(world.run("discard", "--error-type", own, "--dry-run", "--json"))

    assert known.stdout == "3 dead letters would be redriven: 2 retries-exhausted, 1 permanent\n"
    assert one.stdout == "1 dead letter would be discarded: 1 permanent\n"
    assert counted == [
        {
            "verb": "discard",
            "dryRun": True,
            "deadLetters": 4,
            "reasons": {"permanent": 2, "retries-exhausted": 2},
        }
    ]
    assert world.stores.tasks.get(first).cycle == 0


def test_several_ids_are_one_command_with_an_audit_entry_each(world, three):
    _, *ids = three
    done = world.run("discard", *ids, "absent", ids[0], "--json")
    found = entries(world, verb="discardDeadLetter", limit=4)

    assert done.exit_code == 1
    assert sorted((line["taskId"], line["outcome"]) for line in lines(done)) == sorted(
        [*((each, "discarded") for each in ids), ("absent", "nothing-found")]
    )
    assert {one.target: one.result for one in found} == {**dict.fromkeys(ids, "ok"), "absent": "nothing-found"}


def test_an_audit_entry_is_a_line_on_stderr_only_when_it_is_asked_for(world, caplog):
    caplog.set_level("INFO", logger="dispatch.audit")
    world.run("discard", "absent")
    before = len(caplog.records)
    world.run("--audit-line", "discard", "absent")

    assert (before, len(caplog.records)) == (0, 1)


def test_jobs_and_stop_answer_in_words_and_in_json(world):
    job = BulkRedrive(DeadLetterFilter("echo"), 10, 0, "me")
    world.stores.bulk.add(job)
    shown, listed = world.run("jobs").stdout, lines(world.run("jobs", "--json"))
    done = world.run("stop", job.id, "absent", "--json")

    assert job.id in shown
    assert [each["id"] for each in listed] == [job.id]
    assert lines(done) == [{"jobId": job.id, "outcome": "stopped"}, {"jobId": "absent", "outcome": "no-such-job"}]
    assert (done.exit_code, world.run("jobs").stdout) == (1, "no jobs\n")
