"""Only what has been short for a while shares a write to a process."""

from dispatch.worker.pace import AHEAD, Pace


def jobs_at_once(pace, type):
    return max(1, int(AHEAD / pace.seconds(type)))


def test_a_new_type_comes_alone_and_one_that_stays_short_in_company():
    pace = Pace()
    first = jobs_at_once(pace, "echo")
    for _ in range(400):
        pace.ran("echo", 0.000_05)

    assert (first, jobs_at_once(pace, "echo"), jobs_at_once(pace, "other")) == (1, 16, 1)


def test_one_long_run_sends_a_type_back_to_the_start():
    pace = Pace()
    for _ in range(400):
        pace.ran("echo", 0.000_05)
    pace.ran("echo", 1.0)
    after_one = jobs_at_once(pace, "echo")
    for _ in range(300):
        pace.ran("echo", 0.000_05)
    soon = jobs_at_once(pace, "echo")
    for _ in range(400):
        pace.ran("echo", 0.000_05)

    assert (after_one, soon, jobs_at_once(pace, "echo")) == (1, 1, 16)
