"""Lines of greenlets that may wait: one of each goes on in turn."""

import gevent

from dispatch.gateway.server.worker import Turns

CROWD = 200


def test_a_crowd_in_one_line_delays_no_other_line():
    turns, begun = Turns(), []

    def paced(line):
        turns.wait(line)
        begun.append(line)

    crowd = [gevent.spawn(paced, "crowd") for _ in range(CROWD)]
    others = [gevent.spawn(paced, line) for line in ("a", "b", "a")]
    gevent.joinall([*crowd, *others], raise_error=True)

    assert max(place for place, line in enumerate(begun) if line != "crowd") < 10
    assert (begun.count("crowd"), turns._lines, turns._lengths) == (CROWD, {}, {})


def test_a_greenlet_that_is_killed_in_its_line_holds_up_no_other():
    turns = Turns()
    crowd = [gevent.spawn(turns.wait, "crowd") for _ in range(20)]
    gevent.sleep(0)
    gevent.killall(crowd[:10])
    gevent.joinall(crowd, timeout=10, raise_error=True)

    assert all(each.dead for each in crowd)
    assert turns._lines == {}
