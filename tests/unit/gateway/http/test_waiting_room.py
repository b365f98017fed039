"""Places to wait: a number for all, a share for each principal."""

from dispatch.gateway.http.long_poll import POLL, STREAM, WaitingRoom, WaitPlace


def test_a_principal_has_a_share_and_all_together_have_the_room():
    room = WaitingRoom(3, 2)

    assert [room.enter("ada", POLL), room.enter("ada", STREAM), room.enter("ada", POLL)] == ["taken", "taken", "share"]
    assert [room.enter("bob", POLL), room.enter("eve", POLL)] == [WaitPlace.TAKEN, WaitPlace.ROOM]


def test_a_place_that_was_left_is_free_again():
    room = WaitingRoom(3, 1)
    for _ in range(5):
        assert room.enter("ada", STREAM) is WaitPlace.TAKEN
        room.leave("ada", STREAM)
