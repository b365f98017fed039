"""``dispatch keys`` with the file that gateways follow."""

import json
import re

import pytest
from click.testing import CliRunner

from dispatch.cli import keys as command
from dispatch.config import api_keys, key_file

PEPPER = "pepper"


@pytest.fixture
def run(tmp_path):
    """Runs a command; the result."""
    environment = {
        "DISPATCH_API_KEYS_FILE": str(tmp_path / "keys"),
        "DISPATCH_API_KEY_PEPPER": PEPPER,
        "DISPATCH_API_KEYS": None,
        "DISPATCH_REDIS_URL": None,
    }

    def invoke(*words, **more):
        return CliRunner().invoke(command.keys, words, env={**environment, **more})

    invoke.path = tmp_path / "keys"
    invoke.entries = lambda: key_file.parse(key_file.read(str(invoke.path)))
    return invoke


def test_a_new_key_is_printed_once_and_only_its_hmac_is_kept(run):
    made = run("new", "--id", "shop")
    key = made.stdout.strip()
    (entry,) = run.entries()

    assert (made.exit_code, api_keys.key_id(key)) == (0, "shop")
    assert api_keys.digest(PEPPER, key) == entry.digest
    assert {api_keys.TASKS_READ, api_keys.TASKS_WRITE} == entry.scopes
    assert key.split("_", 2)[2] not in run.path.read_text()
    assert run.path.stat().st_mode & 0o777 == 0o600


def test_a_secret_is_replaced_without_a_gap_and_a_third_is_refused(run):
    run("new", "--id", "shop", "--scopes", "tasks:read", "--expires", "2027-01-31T00:00:00Z")
    run("new", "--id", "shop", "--expires", "90d")
    third = run("new", "--id", "shop")
    old, new = run.entries()
    gone = run("revoke", "shop", "--key", old.fingerprint)

    assert old.scopes == new.scopes == {api_keys.TASKS_READ}
    assert api_keys.written(old.expires) == "2027-01-31T00:00:00Z"
    assert (third.exit_code, "revoke one first" in third.stderr) == (2, True)
    assert (0, f"shop {old.fingerprint} revoked\n") == (gone.exit_code, gone.stdout)
    assert (new,) == run.entries()


def test_revoking_an_id_removes_all_of_it_and_keeps_comments_and_others(run):
    for name in ("shop", "bank", "shop"):
        run("new", "--id", name)
    gone = run("revoke", "shop")
    again = run("revoke", "shop")

    assert (gone.exit_code, gone.stdout.count("revoked")) == (0, 2)
    assert [entry.id for entry in run.entries()] == ["bank"]
    assert key_file.lines(str(run.path))[0] == key_file.HEADER
    assert (again.exit_code, "no such API key" in again.stderr) == (2, True)


def test_a_key_that_stays_in_the_setting_is_pointed_out(run):
    run("new", "--id", "shop")
    gone = run("revoke", "shop", DISPATCH_API_KEYS=f"shop:{'a' * 64}:tasks:read")

    assert "it is valid until it is removed there" in gone.stderr


def test_the_list_has_no_secret_and_both_places(run):
    key = run("new", "--id", "shop", "--expires", "2020-01-31T00:00:00Z").stdout.strip()
    listed = run("list", DISPATCH_API_KEYS=f"bank:{'a' * 64}:tasks:read,nonsense")
    (entry,) = run.entries()
    rows = [re.split(r"  +", line) for line in listed.stdout.splitlines()]

    assert rows[0] == ["ID", "KEY", "SCOPES", "EXPIRES", "LAST USED", "FROM"]
    assert rows[1] == [
        "shop", entry.fingerprint, "tasks:read+tasks:write", "2020-01-31T00:00:00Z (expired)", "?", "file",
    ]  # fmt: skip
    assert rows[2] == ["bank", "a" * 12, "tasks:read", "never", "?", "setting"]
    assert "invalid entry" in listed.stderr
    assert entry.digest not in listed.stdout
    assert key.split("_", 2)[2] not in listed.output


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["new", "--id", "Shop"], "must be"),
        (["new", "--id", "a\nb"], "must be"),
        (["new", "--scopes", "tasks:fly"], "must be"),
        (["new", "--expires", "tomorrow"], "must be"),
        (["new", "--expires", "2027-01-31"], "must be"),
        (["revoke", "shop", "--file", ""], "name the file"),
        (["revoke", "shop"], "no such API key"),
        (["new", "--file", "/nonexistent/keys"], "No such file"),
    ],
)
def test_what_is_wrong_is_printed_in_a_line_and_nothing_is_written(run, words, reason):
    refused = run(*words)

    assert refused.exit_code == 2
    assert reason in refused.stderr
    assert refused.exception is None or isinstance(refused.exception, SystemExit)
    assert not run.path.exists()


def test_a_broken_file_is_not_written_over(run):
    run("new", "--id", "shop")
    run.path.write_text(run.path.read_text() + "half")
    refused = run("new", "--id", "bank")

    assert (2, "not written completely" in refused.stderr) == (refused.exit_code, True)
    assert run.path.read_text().endswith("half")


def test_a_key_of_another_pepper_is_refused(run):
    first = run("new", "--id", "shop", DISPATCH_API_KEY_PEPPER=None)
    second = run("new", "--id", "bank", DISPATCH_API_KEY_PEPPER=None)

    assert "DISPATCH_API_KEY_PEPPER=" in first.stdout
    assert (second.exit_code, "another pepper" in second.stderr) == (2, True)


def test_each_verb_answers_programs_in_json(run):
    made = json.loads(run("new", "--id", "shop", "--json").stdout)
    printed = json.loads(run("new", "--id", "shop", "--json", "--file", "").stdout)
    (listed,) = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    gone = json.loads(run("revoke", "shop", "--json").stdout)
    (named,) = {(each["id"], each["key"], each["scopes"]) for each in (made, listed, gone)}

    assert named == ("shop", made["key"], "tasks:read+tasks:write")
    assert (made["file"], made["configure"], printed["file"]) == (str(run.path), {}, None)
    assert set(printed["configure"]) == {"DISPATCH_API_KEY_PEPPER", "DISPATCH_API_KEYS"}
    assert made["token"].startswith("rk_shop_")
    assert (listed["expires"], listed["lastUsed"], listed["from"]) == (None, None, "file")
    assert (gone["outcome"], run("list", "--json").stdout) == ("revoked", "")
