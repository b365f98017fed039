import argparse

import pytest

from bench import __main__ as command_line
from bench.harness import load
from bench.harness.statistics import Spread
from bench.parts import gateway, smoke
from bench.parts.base import OURS
from bench.peers.body import PeerEcho
from tasks.echo import Echo


def _options(*words):
    return command_line._parser().parse_args(words)


def test_every_part_has_a_command_and_a_name_of_its_own():
    parts = (*command_line.PARTS, *command_line.ALONE)

    assert len({part.NAME for part in parts}) == len(parts)
    for part in parts:
        assert _options(part.NAME).part is part


def test_the_long_variant_gives_options_that_the_parts_have():
    for name, words in command_line._LONG.items():
        assert isinstance(_options(name, *words), argparse.Namespace)


def test_a_part_that_does_not_exist_is_refused(capsys):
    with pytest.raises(SystemExit):
        _options("nonsense")

    assert "invalid choice" in capsys.readouterr().err


def test_peers_validate_the_fields_of_our_echo():
    assert set(PeerEcho.model_fields) == set(Echo.model_fields)


def test_every_benchmark_submits_a_valid_echo():
    assert '"message": "xxx' in load.body({"fail_times": 2})


def test_options_of_the_gateway_name_all_their_combinations():
    assert gateway._wanted(_options("gateway")) == list(gateway.CASES)
    assert gateway._wanted(_options("gateway", "--kinds", "GET,304", "--connections", "8")) == [
        ("GET", 8, 2),
        ("304", 8, 2),
    ]


def test_smoke_compares_each_round_with_stock_celery_of_the_same_round():
    samples = {
        (smoke.CASE, OURS): {smoke.TASK: [2_000, 200], smoke.POST: [1_000, 100]},
        (smoke.CASE, smoke.CELERY): {smoke.TASK: [1_000, 100]},
    }

    found = smoke.ratios(samples)

    assert found == {smoke.TASK: Spread(2, 2, 2, 2), smoke.POST: Spread(1, 1, 1, 2)}


def test_smoke_fails_only_far_above_what_is_recorded():
    known = {smoke.TASK: 1.0, smoke.POST: 0.5}

    assert not smoke.dearer({smoke.TASK: Spread(2.0, 1, 9, 3), smoke.POST: Spread(0.1, 0.1, 0.1, 3)}, known)
    (line,) = smoke.dearer({smoke.TASK: Spread(2.1, 1, 9, 3), smoke.POST: Spread(1.0, 1, 1, 3)}, known)
    assert smoke.TASK in line


def test_the_repository_has_a_ratio_for_each_figure_of_smoke():
    assert set(smoke.recorded(smoke.RECORDED)) == {smoke.TASK, smoke.POST}
