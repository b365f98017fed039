"""Which data directory the private servers of a stack use when its ladder has changed."""

import os

import pytest

from dispatch.config.settings import load
from launcher import datadir
from launcher.datadir import DelayQueues

DEFAULT = "1m=60,5m=300,30m=1800"


@pytest.fixture
def choose(tmp_path):
    """Choose for a ladder; one call is later than the one before."""
    times = iter(range(1_000))

    def chosen(ladder=DEFAULT, park=30.0, release="rabbitmq_server-3.10.8", hold=600.0):
        settings = load({}, ladder=ladder, lease_park=park, hold_ttl=hold)
        wanted = DelayQueues.of(settings.ladder, settings.lease_park, release, settings.hold_ttl)
        path, notes = datadir.choose(tmp_path / "data", wanted)
        note = path / "delay-queues.json"
        os.utime(note, (at := next(times), at))
        return path.name, notes

    return chosen


def test_a_ladder_that_adds_and_drops_names_goes_on_with_the_same_data(choose):
    first, notes = choose()
    second, changed = choose("1m=60,10m=600,30m=1800")
    third, back = choose()

    assert first == second == third
    assert notes == []
    assert changed == [
        "no longer in the ladder: robot.retry.q.5m; delete them when they are empty: docs/how-to/migrate-a-queue.md"
    ]
    assert "robot.retry.q.10m" in back[0]


def test_another_wait_under_the_same_name_gets_data_of_its_own_and_the_reason(choose):
    first, _ = choose()
    second, notes = choose("1m=60,5m=300,30m=900")

    assert second != first
    assert notes[0].startswith("new ladder or RabbitMQ release: its servers use a new data directory")
    assert f"{first}: robot.retry.q.30m waits 1800 s there, and 900 s in these settings" in notes[1]
    assert choose() == (first, [])
    assert choose("1m=60,5m=300,30m=900")[0] == second


def test_a_name_that_was_dropped_keeps_its_wait(choose):
    first, _ = choose()
    choose("1m=60,30m=1800")

    assert choose("1m=60,5m=301,30m=1800")[0] != first
    assert choose(park=5.0)[0] != first
    assert choose(hold=5.0)[0] != first


def test_another_release_of_rabbitmq_gets_data_of_its_own(choose):
    first, _ = choose()
    second, notes = choose(release="rabbitmq_server-4.3.0")

    assert second != first
    assert "they are of rabbitmq_server-3.10.8, and this is rabbitmq_server-4.3.0" in notes[1]


def test_the_data_of_before_there_were_notes_are_found_by_their_name(choose, tmp_path):
    settings = load({}, ladder=DEFAULT, lease_park=30.0)
    name = DelayQueues.of(settings.ladder, 30.0, "rabbitmq_server-3.10.8").identity
    (tmp_path / "data" / name).mkdir(parents=True)

    assert choose() == (name, [])
