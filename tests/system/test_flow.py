"""The main job from outside: tasks through every hop of real processes."""

import concurrent.futures
import datetime as dt
import os
import secrets
import signal
import statistics
import time

import httpx
import pytest

from support import processes
from support.waiting import eventually

TRACE = "0af7651916cd43dd8448eb211c80319c"


def seconds(text):
    return dt.datetime.fromisoformat(text).timestamp()


def test_a_robot_finishes_its_work_and_the_task_succeeds_with_one_order(system):
    task_id = system.accepted("robot.clean", {"robot": "SN-3", "areas": ["lobby"]})
    task = system.ended(task_id)
    orders = httpx.get(f"{system.stack.env['ROBOT_API_URL']}/control/orders").json()

    assert task["status"] == "SUCCESS"
    assert task["result"]["state"] == "SUCCEEDED"
    assert orders[task_id]["created"] == 1
    assert "progress" in [hop["kind"] for hop in system.hops(task_id)]


def test_a_vendor_that_fails_twice_costs_two_rungs_and_one_order(system):
    task_id = system.accepted("robot.clean", {"robot": "SN-FLAKY-2", "areas": ["lobby"]})
    task = system.ended(task_id)
    hops = system.hops(task_id)
    waits = [(hop["queue"], hop["seconds"]) for hop in hops if hop["kind"] == "delayed"]
    orders = httpx.get(f"{system.stack.env['ROBOT_API_URL']}/control/orders").json()

    assert (task["status"], task["attempt"]) == ("SUCCESS", 3)
    assert waits == [("robot.retry.q.1m", 1), ("robot.retry.q.5m", 2)]
    assert orders[task_id]["created"] == 1


def test_a_throttling_vendor_costs_no_attempt(system):
    task_id = system.accepted("robot.clean", {"robot": "SN-BUSY-1", "areas": ["lobby"]})
    task = system.ended(task_id)

    assert (task["status"], task["attempt"]) == ("SUCCESS", 1)
    assert "parked" in [hop["kind"] for hop in system.hops(task_id)]


def test_a_hopeless_task_climbs_every_rung_into_the_dlq_and_comes_back_by_redrive(system):
    task_id = system.accepted(
        "echo", {"message": "x", "failTimes": 99}, traceparent=f"00-{TRACE}-b7ad6b7169203331-01", X_Request_Id="rq-7"
    )
    dead = system.ended(task_id)
    dead_letters = [
        dead_letter["taskId"] for dead_letter in system.http.get("/v1/dead-letters?type=echo").json()["items"]
    ]
    redriven = system.http.post(f"/v1/dead-letters/{task_id}/redrive")
    again = eventually(lambda: (task := system.task(task_id))["cycle"] == 1 and task["status"] == "FAIL" and task, 40)

    assert (dead["state"], dead["attempt"], dead["traceId"], dead["requestId"]) == ("DEAD_LETTERED", 4, TRACE, "rq-7")
    assert task_id in dead_letters
    assert (redriven.status_code, redriven.json()["taskId"], redriven.json()["cycle"]) == (202, task_id, 1)
    assert (again["attempt"], again["traceId"]) == (4, TRACE)
    assert system.http.delete(f"/v1/dead-letters/{task_id}").status_code == 204


def test_the_ladder_is_climbed_in_order_and_never_early(system):
    task_id = system.accepted("echo", {"message": "x", "failTimes": 3})
    system.ended(task_id)
    hops = system.hops(task_id)
    failed = [seconds(hop["at"]) for hop in hops if hop["kind"] == "failed"]
    started = [seconds(hop["at"]) for hop in hops if hop["kind"] == "started"]
    waits = [begin - end for end, begin in zip(failed, started[1:], strict=True)]

    assert [hop["queue"][-3:] for hop in hops if hop["kind"] == "delayed"] == [".1m", ".5m", "30m"]
    assert all(wait >= rung for wait, rung in zip(waits, (1, 2, 3), strict=True)), waits


def test_a_repeated_key_is_the_same_task_and_it_runs_once(system):
    key = secrets.token_hex(8)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: system.submit("echo", {"message": "k"}, Idempotency_Key=key), range(8)))
    task_id = system.accepted("echo", {"message": "k"}, Idempotency_Key=key)
    other = system.submit("echo", {"message": "other"}, Idempotency_Key=key)
    system.ended(task_id)

    assert {answer.status_code for answer in answers} <= {202, 409}
    assert {answer.json()["taskId"] for answer in answers if answer.status_code == 202} <= {task_id}
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert [hop["kind"] for hop in system.hops(task_id)].count("started") == 1


def test_an_http_request_goes_only_where_it_may(system):
    simulator = system.stack.env["ROBOT_API_URL"]
    management = httpx.URL(system.stack.env["DISPATCH_MANAGEMENT_URL"])
    urls = [
        "http://192.0.2.1/",
        *(f"http://{host}:{management.port}/api/whoami" for host in ("127.0.0.1", "localhost")),
    ]
    good = system.ended(system.accepted("http.request", {"method": "GET", "url": f"{simulator}/healthz"}))
    bad = [system.ended(system.accepted("http.request", {"method": "GET", "url": url})) for url in urls]

    assert (good["status"], good["result"]["status"]) == ("SUCCESS", 200)
    assert [(task["status"], task["attempt"], task["error"]["type"]) for task in bad] == [
        ("FAIL", 1, "host-not-allowed")
    ] * 3


@pytest.mark.parametrize("victim", ["GATEWAY", "WORKER", "REDIS", "RABBITMQ"])
def test_a_killed_process_comes_back_and_every_accepted_task_ends_well(system, victim):
    key = secrets.token_hex(4)
    ids = [system.accepted("echo", {"message": str(n), "sleepSeconds": 0.4}) for n in range(12)]
    system.stack.kill(victim)
    ids += [system.accepted("echo", {"message": str(n)}, Idempotency_Key=f"{key}-{n}") for n in range(12)]
    tasks = [system.ended(task_id, 60) for task_id in ids]

    assert {task["status"] for task in tasks} == {"SUCCESS"}
    assert len(set(ids)) == 24


@pytest.mark.parametrize("victim", ["REDIS", "RABBITMQ"])
def test_every_answer_comes_within_five_seconds_while_a_server_is_silent(system, victim):
    pid = system.stack.pid(victim)
    os.kill(pid, signal.SIGSTOP)
    try:
        answers = [system.submit("echo", {"message": "x"}) for _ in range(6)]
        answers += [system.http.get(path) for path in ("/livez", "/v1/task-types", "/v1/tasks")]
        answers.append(eventually(lambda: (a := system.http.get("/readyz")).status_code == 503 and a, 10))
    finally:
        os.kill(pid, signal.SIGCONT)
    slowest = max(answer.elapsed.total_seconds() for answer in answers)

    assert slowest < 5
    assert {answer.status_code for answer in answers[:6]} == {503}
    assert {answer.headers["content-type"] for answer in answers[:6]} == {"application/problem+json"}
    assert [answer.status_code for answer in answers[6:8]] == [200, 200]


def test_a_full_system_answers_429_with_an_honest_retry_after(system):
    def refused():
        answers = (system.submit("echo", {"message": "x"}) for _ in range(20))
        return next((answer for answer in answers if answer.status_code == 429), None)

    os.kill(system.stack.pid("WORKER"), signal.SIGSTOP)
    try:
        answer = eventually(refused, 30)
    finally:
        os.kill(system.stack.pid("WORKER"), signal.SIGCONT)

    assert answer.json()["type"] == "/problems/queue-depth-exceeded"
    assert 1 <= int(answer.headers["retry-after"]) <= 300
    system.ended(system.accepted("echo", {"message": "after"}), 60)


def test_flower_shows_every_queue_and_the_true_state_of_retries_and_failures(system):
    task_id = system.accepted("echo", {"message": "x", "failTimes": 99})
    with httpx.Client(base_url=system.stack.env["FLOWER_URL"], timeout=20) as flower:

        def state():
            answer = flower.get(f"/api/task/info/{task_id}")
            return answer.json()["state"] if answer.status_code == 200 else None

        eventually(lambda: state() == "RETRY", 20, lambda: f"Flower has {state()}")
        system.ended(task_id)
        eventually(lambda: state() == "FAILURE", 20, lambda: f"Flower has {state()}")
        queues = {queue["name"] for queue in flower.get("/api/queues/length").json()["active_queues"]}

    assert queues >= {"robot.task.q", "robot.retry.q.1m", "robot.retry.q.5m", "robot.retry.q.30m", "robot.task.dlq"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("inspect ping", "pong"),
        ("inspect active", "OK"),
        ("inspect reserved", "OK"),
        ("inspect active_queues", "robot.task.q"),
        ("inspect registered", "robot.clean"),
        ("inspect stats", "autoscaler"),
        ("status", "1 node online"),
        ("report", "task_ignore_result: True"),
        ("topology verify", "No drift"),
        ("queues", "robot.retry.q.30m"),
        ("queues --watch --count 2 --interval 0.1", "robot.task.q"),
        ("dlq list", ""),
    ],
)
def test_the_celery_command_line_works(system, words, expected):
    exported = {name: value for name, value in system.stack.env.items() if name.startswith("DISPATCH_")}
    environ = {**system.stack.environ, **exported}
    done = processes.run("celery", ["-A", "celery_app", *words.split()], environ=environ)

    assert done.returncode == 0, done.stdout + done.stderr
    assert expected in done.stdout


def test_a_task_is_done_soon_after_it_was_accepted(system):
    """Not a timing test: that the straight path has no polling pause in it, which would show as half a second."""
    took = []
    for number in range(20):
        began = time.monotonic()
        task_id = system.accepted("echo", {"message": str(number)})
        while system.http.get(f"/v1/tasks/{task_id}", headers={"Prefer": "wait=5"}).json()["status"] != "SUCCESS":
            pass
        took.append(time.monotonic() - began)

    assert statistics.median(took) < 0.5
