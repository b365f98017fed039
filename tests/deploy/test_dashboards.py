"""Grafana's dashboards: as generated, whole, and each query asks something that is there."""

import importlib.util
import json
import sys

import pytest

from support import deploy
from support.cases import each

DASHBOARDS = deploy.dashboards()
PANELS = [(name, panel) for name, dashboard in DASHBOARDS.items() for panel in dashboard["panels"]]
IDS = [f"{name}: {panel['title']}" for name, panel in PANELS]
SOURCES = {
    source["uid"]: source
    for source in deploy.load("deploy/grafana/provisioning/datasources/datasources.yml")["datasources"]
}


@pytest.fixture
def generator(monkeypatch):
    spec = importlib.util.spec_from_file_location("generate_dashboards", deploy.DEPLOY / "grafana" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_the_committed_dashboards_are_the_generated_ones(generator):
    assert {name: generator.render(dashboard) for name, dashboard in generator.DASHBOARDS.items()} == DASHBOARDS


def test_the_generator_writes_what_it_renders(generator, tmp_path, monkeypatch):
    monkeypatch.setattr(generator, "DIRECTORY", tmp_path)

    generator.main()

    assert {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()} == DASHBOARDS


def test_there_is_one_for_each_question():
    assert DASHBOARDS.keys() == {"flow", "queues", "workers", "slo"}
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == 4


@each("panel", [panel for _, panel in PANELS], ids=IDS)
def test_a_panel_is_whole(panel):
    assert panel["title"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert SOURCES[panel["datasource"]["uid"]]["type"] == panel["datasource"]["type"]
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert all(target["expr"] and target["datasource"] == panel["datasource"] for target in panel["targets"])


@each("name", DASHBOARDS)
def test_panels_fill_the_page_without_overlap(name):
    cells = [
        (x, y)
        for panel in DASHBOARDS[name]["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARDS[name]["panels"]}) == len(DASHBOARDS[name]["panels"])


def test_every_recorded_series_that_is_asked_for_is_recorded():
    recorded = {rule["record"] for rule in deploy.rules() if "record" in rule}
    asked = {name for query in deploy.queries() for name in deploy.RECORDED.findall(query)}

    assert asked <= recorded


def test_grafana_finds_dashboards_and_sources():
    service = deploy.compose()["services"]["grafana"]
    (provider,) = deploy.load("deploy/grafana/provisioning/dashboards/dashboards.yml")["providers"]
    mounts = dict(volume.split(":")[:2] for volume in service["volumes"])
    home = service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]

    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"] == home.rpartition("/")[0]
    assert home.rpartition("/")[2] == "flow.json"
    assert SOURCES["prometheus"]["url"] == "http://prometheus:9090"
    assert SOURCES["jaeger"]["url"] == "http://jaeger:16686"
    assert SOURCES["prometheus"]["jsonData"]["exemplarTraceIdDestinations"][0]["datasourceUid"] == "jaeger"
