import pytest

from bench.harness import wrk
from bench.harness.errors import BenchmarkFailed


def test_the_outcome_is_read_from_the_line_of_the_lua_script():
    outcome = wrk.parsed("Running 2s test\nOUTCOME 1000 2000000 10 3 1500 9000\n", cpu=0.25)

    assert outcome == wrk.WrkOutcome(answered=990, seconds=2, failed=13, cpu=0.25, p50_ms=1.5, p99_ms=9)
    assert outcome.rate == 495


def test_without_that_line_its_output_is_the_reason():
    with pytest.raises(BenchmarkFailed, match="unable to connect"):
        wrk.parsed("unable to connect to 127.0.0.1", cpu=0)
