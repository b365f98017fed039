from bench.harness.turns import OTHERS, interleaved


def _recording(name, taken, figures):
    values = iter(figures)

    def turn():
        taken.append(name)
        return next(values)

    return turn


def test_turns_alternate_and_the_warm_up_does_not_count():
    taken = []
    cases = {
        ("post", "a"): _recording("a", taken, [{"ms": 100}, {"ms": 1}, {"ms": 2}]),
        ("post", "b"): _recording("b", taken, [{"ms": 200}, {"ms": 3}, {"ms": 4}]),
    }

    samples = interleaved(cases, rounds=2)

    assert taken == ["a", "b"] * 3
    assert samples == {("post", "a"): {"ms": [1, 2]}, ("post", "b"): {"ms": [3, 4]}}


def test_of_a_turn_beside_other_load_and_its_repeat_the_quieter_one_counts():
    taken = []
    noisy, quiet = {"ms": 9, OTHERS: 50}, {"ms": 5, OTHERS: 30}

    samples = interleaved({("post", "a"): _recording("a", taken, [noisy, quiet])}, rounds=1, warm_up=0)

    assert samples["post", "a"]["ms"] == [5]


def test_repeats_are_as_many_as_the_turns_of_a_round():
    taken = []
    noisy = {"ms": 9, OTHERS: 50}

    samples = interleaved({("post", "a"): _recording("a", taken, [noisy] * 4)}, rounds=3, warm_up=0)

    assert len(taken) == 4
    assert samples["post", "a"]["ms"] == [9, 9, 9]
