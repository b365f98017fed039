"""Alert rules: each has an urgency and a runbook, is tested, and has the thresholds of the objectives and the settings."""

import re

from dispatch.config import settings as configuration
from support import deploy
from support.cases import each

ALERTS = {rule["alert"]: rule for rule in deploy.rules() if "alert" in rule}
RECORDS = {rule["record"]: rule for rule in deploy.rules() if "record" in rule}
PAGE = (deploy.ROOT / "docs" / "reference" / "alerts.md").read_text()
RUNBOOK = (deploy.ROOT / "docs" / "how-to" / "night-runbook.md").read_text()

#: Hours in the month that the objective is about.
MONTH = 30 * 24


@each("name", ALERTS)
def test_an_alert_names_its_urgency_and_its_runbook(name):
    alert = ALERTS[name]

    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    assert alert["annotations"]["runbook"] == f"docs/how-to/night-runbook.md#{name.lower()}"


def test_the_reference_has_a_section_for_each_alert_with_its_severity():
    assert re.findall(r"^### (\w+)$", PAGE, re.MULTILINE) == list(ALERTS)
    for name, alert in ALERTS.items():
        section = PAGE.partition(f"### {name}\n")[2].partition("\n### ")[0]
        assert section.lstrip().startswith(f"*{alert['labels']['severity']}*")


def test_the_runbook_has_an_entry_for_each_alert_from_symptom_to_what_to_do():
    entries = re.split(r"^### ", RUNBOOK.partition("## By alert")[2], flags=re.MULTILINE)[1:]

    assert [entry.partition("\n")[0] for entry in entries] == list(ALERTS)
    for entry in entries:
        assert re.findall(r"^- \*\*(\w+)\*\* ", entry, re.MULTILINE) == ["Symptom", "Look", "Do"]


def test_every_alert_is_tested():
    tests = "".join(path.read_text() for path in (deploy.DEPLOY / "prometheus" / "tests").glob("*.yml"))

    assert [name for name in ALERTS if name not in tests] == []


@each(
    ("name", "share", "hours", "window", "short"),
    [("RobotAcceptanceBurnsFast", 0.10, 1, "1h", "5m"), ("RobotAcceptanceBurnsSlowly", 0.20, 6, "6h", "30m")],
)
def test_burn_rates_are_the_share_of_the_months_budget(name, share, hours, window, short):
    factor = round(share * MONTH / hours)
    expression = ALERTS[name]["expr"]

    assert f"robot:acceptance_errors:ratio_rate{window} > {factor} * 0.005" in expression
    assert f"robot:acceptance_errors:ratio_rate{short} > {factor} * 0.005" in expression


def test_the_budget_is_what_the_objective_leaves():
    assert RECORDS["robot:acceptance_budget:remaining30d"]["expr"].endswith("/ 0.005")


def test_the_latency_objectives():
    assert ALERTS["RobotAcceptanceSlow"]["expr"].endswith('{quantile="0.95"} > 1')
    assert re.findall(r'quantile="(.+?)"} > (\S+)', ALERTS["RobotStatusQuerySlow"]["expr"]) == [
        ("0.95", "0.3"),
        ("0.99", "0.8"),
    ]


def test_an_alert_fires_when_work_has_waited_half_its_life():
    ttl = configuration.load({}).queue_ttl

    assert ALERTS["RobotWorkExpiresSoon"]["expr"].endswith(f"> {ttl / 2:g}")


def test_metrics_are_kept_for_the_objectives_month():
    command = deploy.compose()["services"]["prometheus"]["command"]
    (days,) = [re.findall(r"retention\.time=(\d+)d", option)[0] for option in command if "retention.time" in option]

    assert int(days) >= 30


def test_every_recorded_series_that_an_alert_needs_is_recorded():
    asked = {name for alert in ALERTS.values() for name in deploy.RECORDED.findall(alert["expr"])}

    assert asked <= RECORDS.keys()
