import dataclasses

from dispatch.gateway.contract import response_models
from dispatch.protocol.concurrency import TypeLimits
from dispatch.protocol.rates import Rate
from dispatch.store.concurrency import KeyView
from dispatch.store.rates import RateView
from support.gateway_fakes import GREET, World, problem


def test_keys_are_shown_with_who_holds_them_and_who_waits():
    world = World()
    world.concurrency.keys["robot-7"] = KeyView("robot-7", 1, (("t-1", 1_795_487_760_000),), 2, ("t-2", "t-3"))
    client = world.client()
    (listed,) = response_models.KeyListModel.model_validate(client.get("/v1/keys").json).items
    one = response_models.KeyModel.model_validate(client.get("/v1/keys/robot-7").json)

    assert listed == one
    assert (one.limit, one.holders[0].task_id, one.waiting, one.next) == (1, "t-1", 2, ["t-2", "t-3"])
    problem(client.get("/v1/keys/other"), 404, "key-not-in-use")


def test_the_rates_of_task_types_are_shown_among_the_keys_and_with_their_types():
    paced = dataclasses.replace(GREET, limits=TypeLimits(1, 7, Rate(10, 60)))
    world = World(types={"greet": paced, "robot.tidy": dataclasses.replace(GREET, name="robot.tidy")})
    world.rates.rates["rate:greet"] = RateView("rate:greet", Rate(10, 60), 9, 2, ("t-2", "t-3"))
    client = world.client()
    (listed,) = response_models.KeyListModel.model_validate(client.get("/v1/keys").json).items
    one = response_models.KeyModel.model_validate(client.get("/v1/keys/rate:greet").json)
    shown = [client.get(f"/v1/task-types/{name}").json for name in ("greet", "robot.tidy")]

    assert listed == one
    assert (one.key, one.limit, one.per_seconds, one.begun, one.waiting) == ("rate:greet", 10, 60, 9, 2)
    assert (one.holders, one.next) == ([], ["t-2", "t-3"])
    assert [(each["rate"], each["maxRunning"]) for each in shown] == [("10/m", 7), (None, None)]
    problem(client.get("/v1/keys/rate:robot.tidy"), 404, "key-not-in-use")
