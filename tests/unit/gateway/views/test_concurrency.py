from dispatch.gateway.contract import models
from dispatch.store.concurrency import KeyView
from support.gateway_fakes import World, problem


def test_keys_are_shown_with_who_holds_them_and_who_waits():
    world = World()
    world.concurrency.keys["robot-7"] = KeyView("robot-7", 1, (("t-1", 1_795_487_760_000),), 2, ("t-2", "t-3"))
    client = world.client()
    (listed,) = models.KeyListModel.model_validate(client.get("/v1/keys").json).items
    one = models.KeyModel.model_validate(client.get("/v1/keys/robot-7").json)

    assert listed == one
    assert (one.limit, one.holders[0].task_id, one.waiting, one.next) == (1, "t-1", 2, ["t-2", "t-3"])
    problem(client.get("/v1/keys/other"), 404, "key-not-in-use")
