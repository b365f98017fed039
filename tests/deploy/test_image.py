"""The Dockerfile copies what it needs, and only that reaches the builder."""

import re
import tomllib

from support import deploy

DOCKERFILE = (deploy.ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((deploy.ROOT / "pyproject.toml").read_text())
COPIED = {
    source
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    for source in sources.split()
}
ALLOWED = set(re.findall(r"^!(\S+)$", (deploy.ROOT / ".dockerignore").read_text(), re.MULTILINE))


def test_only_what_is_copied_is_sent_to_the_builder():
    assert (deploy.ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
    assert ALLOWED == COPIED
    assert all((deploy.ROOT / source).exists() for source in COPIED)


def test_the_image_has_every_module_of_the_package():
    assert set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]) <= COPIED


def test_flowers_settings_are_where_it_starts():
    assert re.search(r"^COPY flowerconfig.py ./$", DOCKERFILE, re.MULTILINE)


def test_bytecode_has_no_time_in_it():
    assert "PYC_INVALIDATION_MODE=UNCHECKED_HASH" in DOCKERFILE


def test_packages_are_the_locked_ones_without_the_development_group():
    assert len(re.findall(r"^RUN uv sync --locked --no-dev", DOCKERFILE, re.MULTILINE)) == 2


def test_the_python_is_the_one_the_tests_run_on():
    (version,) = re.findall(r"^ARG PYTHON=(\d+\.\d+)\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)

    assert f">={version}" == PROJECT["project"]["requires-python"]


def test_it_runs_as_a_user_without_rights_home_or_shell():
    last_stage = DOCKERFILE.rpartition("FROM ")[2]

    assert re.search(r"^USER 10001:10001$", last_stage, re.MULTILINE)
    assert "--home-dir /nonexistent --shell /usr/sbin/nologin" in last_stage


def test_its_volumes_belong_to_that_user():
    services = deploy.compose()["services"]
    mounted = {
        volume.split(":")[1]
        for service in services.values()
        if "build" in service
        for volume in service.get("volumes", [])
    }

    assert mounted == {"/var/lib/robot/definitions", "/var/lib/robot/flower"}
    assert all(path in DOCKERFILE for path in mounted)
