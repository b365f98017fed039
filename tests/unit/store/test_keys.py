"""The names of the Redis keys are an interface: scripts of operators and older releases read them."""

from dispatch.store.keys import RedisKeys

KEYS = RedisKeys("robot:")


def test_the_keys_of_a_task_share_a_cluster_slot():
    assert KEYS.task("t-1") == ("robot:task:{t-1}", "robot:claim:{t-1}", "robot:hops:{t-1}", "robot:message:{t-1}")


def test_the_keys_of_a_principal():
    assert KEYS.idempotency("ada", "k") == "robot:idem:ada:k"
    assert KEYS.rate("ada") == "robot:rate:ada"
    assert KEYS.key_used("0123456789ab") == "robot:key-used:0123456789ab"
    assert KEYS.index("ada") == "robot:index:ada"


def test_the_keys_of_the_whole_system():
    properties = [name for name, value in vars(RedisKeys).items() if isinstance(value, property)]

    assert {name: getattr(KEYS, name) for name in properties} == {
        "probe": "robot:probe",
        "workers": "robot:workers",
        "due": "robot:due",
        "waiting": "robot:waiting",
        "dead": "robot:dead",
        "stale": "robot:dead:stale",
        "recorded": "robot:dead:known",
        "walk": "robot:dead:walk",
        "audit": "robot:audit",
        "jobs": "robot:jobs",
        "jobs_turn": "robot:jobs:turn",
        "bulk_redrives": "robot:dead:jobs",
        "pauses": "robot:pauses",
        "held": "robot:held",
        "resuming": "robot:resuming",
        "schedules": "robot:schedules",
        "keys_in_use": "robot:keys",
    }
    assert KEYS.index(None) == "robot:index"
    assert KEYS.concurrency("a:b") == ("robot:key:{a:b}", "robot:key:called:{a:b}", "robot:key:waiting:{a:b}")
    assert KEYS.concurrency("}a%")[0] == "robot:key:{%7Da%25}"  # an empty hash tag would be none
    assert KEYS.held_by("type:echo") == "robot:held:type:echo"


def test_every_key_begins_with_the_prefix_of_the_settings():
    other = RedisKeys("x.")

    assert other.task("t")[0] == "x.task:{t}"
    assert other.index("") == "x.index:"
    assert other.due == "x.due"
