"""What Prometheus scrapes: from a gateway of several processes, and from a worker whose children come and go."""

import time
from contextlib import ExitStack

import httpx
from prometheus_client.parser import text_string_to_metric_families

import topology
from dispatch.maintenance.queue_metrics import QueueMetrics
from dispatch.protocol.record import State
from dispatch.protocol.schedules import Schedule
from dispatch.store.schedules import ScheduleNote, ScheduleStore
from dispatch.store.scripts import RedisHandle
from support.gateway_live import running_gateway
from support.ports import free_port
from support.steps_client import APP, send
from support.waiting import eventually
from support.worker import open_bench, running_worker


def scraped(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def get(samples, name, **labels):
    return samples.get((name, *sorted(labels.items())))


def test_whichever_process_answers_counts_for_all(settings):
    with open_bench(settings), running_gateway(settings, free_port()) as (client, _, _):
        for _ in range(20):  # new connections, so that both processes have their share
            with httpx.Client(base_url=client.base_url, trust_env=False) as fresh:
                assert fresh.post("/v1/tasks", json={"type": "echo", "payload": {"message": "x"}}).status_code == 202
        scrapes = []
        for _ in range(6):
            with httpx.Client(base_url=client.base_url, trust_env=False) as fresh:
                scrapes.append(scraped(fresh.get("/metrics").text))

    for samples in scrapes:
        assert get(samples, "robot_tasks_accepted_total", type="echo") == 20
        assert get(samples, "robot_http_requests_total", method="POST", route="/v1/tasks", status="202") == 20
        measured = {"method": "POST", "route": "/v1/tasks", "status": "202"}
        assert get(samples, "robot_http_request_duration_seconds_count", **measured) == 20
        assert get(samples, "robot_publish_confirm_seconds_count") == 20
        assert get(samples, "robot_queue_guard_refusing") == 0


def test_a_worker_exports_how_its_tasks_went(settings):
    port = free_port()
    changed = settings.model_copy(update={"worker_metrics_port": port})
    with ExitStack() as stack:
        made = stack.enter_context(open_bench(changed))
        stack.enter_context(running_worker(changed, abrupt=True))
        began = time.monotonic()
        good = [made.submit("echo", {"message": "x"}) for _ in range(5)]
        slow = made.submit("echo", {"message": "x", "failTimes": 1})
        dead = made.submit("echo", {"message": "x", "permanent": True})
        for task_id in (*good, slow, dead):
            made.finished(task_id)
        took = time.monotonic() - began

        def look():
            samples = scraped(httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text)
            ready = get(samples, "robot_queue_messages", queue="robot.task.dlq", state="ready") == 1
            consumed = get(samples, "robot_queue_consumers", queue="robot.task.q") == 1  # of a later look at the queues
            dead_letters = get(samples, "robot_dead_letters_total", reason="permanent")
            return samples if ready and consumed and dead_letters else None

        samples = eventually(look, 20, "the worker exports it all")

    assert get(samples, "robot_task_attempts_total", type="echo", outcome="succeeded") == 6
    assert get(samples, "robot_task_attempts_total", type="echo", outcome="retried") == 1
    assert get(samples, "robot_task_attempts_total", type="echo", outcome="dead") == 1
    assert get(samples, "robot_task_retries_total", type="echo", rung="1m") == 1
    assert get(samples, "robot_claims_total", answer="RUN") == 8
    assert get(samples, "robot_task_duration_seconds_count", type="echo") == 8
    assert get(samples, "robot_task_queue_seconds_count", type="echo") == 8
    assert get(samples, "robot_task_queue_seconds_sum", type="echo") < 8 * took  # each of eight waits, in seconds
    assert get(samples, "robot_dead_letters_total", reason="permanent") == 1
    assert get(samples, "robot_tasks_in_flight") == 0
    assert get(samples, "robot_topology_drift") == 0
    assert 0 < get(samples, "robot_queue_oldest_message_age_seconds", queue="robot.task.dlq") < 60


def test_waits_for_a_signal_are_counted_and_those_for_a_time_are_not(settings):
    port = free_port()
    changed = settings.model_copy(update={"worker_metrics_port": port})
    with open_bench(changed) as made, running_worker(changed, app=APP, abrupt=True):
        for asked in ({"until": ["go"]}, {}):
            made.finished(send(made, steps=2, seconds=1, **asked))
        samples = scraped(httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text)

    assert get(samples, "robot_task_attempts_total", type="wait.steps", outcome="waited") == 4
    assert get(samples, "robot_signal_waits_total", type="wait.steps") == 2


def test_redis_shows_how_full_its_fullest_node_is(settings):
    redis = RedisHandle(settings, timeout=1.0)
    nodes = [
        {"maxmemory": 0, "used_memory": 9, "total_system_memory": 90},
        {"maxmemory": 200, "used_memory": 100},
        {"maxmemory": 100, "used_memory": 80},
    ]
    redis.memory = lambda: nodes
    watch = QueueMetrics(redis, topology.broker_map(settings), settings)

    def shown():
        watch.step()
        families = {family.name: family for family in watch.collect()}
        return [sample.value for sample in families["robot_redis_memory_ratio"].samples]

    fullest = shown()
    del nodes[1:]

    assert (fullest, shown()) == ([0.8], [0.1])


def test_the_oldest_message_is_the_oldest_task_that_waits(settings):
    watch = QueueMetrics(RedisHandle(settings, timeout=1.0), topology.broker_map(settings), settings)

    def age(queue="robot.task.q"):
        watch.step()
        families = {family.name: family for family in watch.collect()}
        samples = families["robot_queue_oldest_message_age_seconds"].samples
        return next(sample.value for sample in samples if sample.labels["queue"] == queue)

    with open_bench(settings) as made:
        assert age() == 0
        made.submit("echo", {"message": "first"})
        time.sleep(0.3)  # so that the two differ in age
        second = made.submit("echo", {"message": "second", "failTimes": 1})
        assert age() >= 0.3
        with running_worker(settings):
            made.wait_for(second, State.RETRY_WAIT)
            assert age() == 0  # a task on its rung doesn't wait for a worker
            made.finished(second)
        assert age() == 0
        assert age("robot.task.dlq") == 0


def test_a_task_that_was_never_published_does_not_wait_for_ever(settings):
    redis = RedisHandle(settings, timeout=1.0)
    watch = QueueMetrics(redis, topology.broker_map(settings), settings)
    with open_bench(settings) as made:
        task_id = made.submit("echo", {"message": "x"})
        redis.run(("DEL", redis.keys.task(task_id).record))
        watch.step()
        assert redis.run(("ZCARD", redis.keys.waiting)) == [0]


def test_schedules_are_counted_by_how_they_are(settings):
    redis = RedisHandle(settings, timeout=1.0)
    store, now = ScheduleStore(redis), int(time.time() * 1_000)
    watch = QueueMetrics(redis, topology.broker_map(settings), settings)

    def shown():
        watch.step()
        families = {family.name: family for family in watch.collect()}
        states = {sample.labels["state"]: sample.value for sample in families["robot_schedules"].samples}
        return states, [sample.value for sample in families["robot_schedule_last_fire_timestamp_seconds"].samples]

    empty = shown()
    for name, next_at in (("late", now - 61_000), ("soon", now + 1_000), ("broken", now + 1_000), ("paused", None)):
        one = Schedule(name, "ada", "echo", {}, "* * * * *", paused=next_at is None)
        assert store.set(one, was=0, next_at=next_at)
        if name == "broken":
            assert store.note(one, ScheduleNote(0, now - 60_000, next_at, "tick", missed=1, error="no such type"))
        if name == "soon":
            assert store.note(
                one, ScheduleNote(0, now - 5_000, next_at, "tick", fired_at=now - 5_000, fired_task="t", fired=1)
            )

    assert empty == ({"waiting": 0, "paused": 0, "missed": 0, "failing": 0}, [])
    assert shown() == ({"waiting": 3, "paused": 1, "missed": 1, "failing": 1}, [(now - 5_000) / 1_000])
