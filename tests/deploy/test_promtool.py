"""Prometheus's own tools read what is deployed: configuration, rules, their unit tests, the dashboards' queries."""

import json
import shutil
import subprocess

import pytest

from support import deploy

PROMETHEUS = deploy.DEPLOY / "prometheus"


def promtool(*words):
    """The output of promtool, which must succeed."""
    tool = shutil.which("promtool")
    assert tool, "promtool is missing: scripts/setup-promtool.sh installs it"
    done = subprocess.run([tool, *map(str, words)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_configuration_and_rules_are_valid():
    output = promtool("check", "config", PROMETHEUS / "prometheus.yml")

    assert output.count("SUCCESS") == 4


@pytest.mark.parametrize("file", sorted((PROMETHEUS / "tests").glob("*.yml")), ids=lambda path: path.stem)
def test_the_rules_pass_their_unit_tests(file):
    assert "SUCCESS" in promtool("test", "rules", file)


def test_the_dashboards_queries_are_promql(tmp_path):
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(deploy.queries())]
    file = tmp_path / "queries.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))

    assert f"{len(rules)} rules found" in promtool("check", "rules", file)
