"""What commands share: tables, JSON, errors as one line."""

import json

import click
from click.testing import CliRunner

from dispatch.cli.output import echo_json, environment, reported
from dispatch.cli.tables import table
from dispatch.errors import NotSent, StoreUnavailable, Trouble
from support.cases import each


def test_a_table_has_aligned_columns_and_no_space_at_the_end_of_a_line():
    text = table(("name", "ready", "note"), [("a-long-name", "7", "x"), ("b", "12345678", "")], right={"ready"})

    assert text.splitlines() == [
        "name            ready  note",
        "a-long-name         7  x",
        "b            12345678",
    ]


def test_a_table_without_rows_is_its_heads():
    assert table(("a", "b"), []) == "a  b"


def test_rows_may_be_read_once_only():
    assert table(["a"], iter([["1"], ["2"]])) == "a\n1\n2"


def run(command):
    return CliRunner().invoke(command)


@each("error", [StoreUnavailable("Redis is away"), OSError("Redis is away")])
def test_an_expected_error_is_one_line_and_an_exit_code(error):
    @click.command()
    @reported("dlq", code=lambda exc: 3 if exc is error else 2)
    def command():
        raise error

    done = run(command)

    assert (done.exit_code, done.stderr) == (3, "dlq: Redis is away\n")


def test_the_exit_code_is_2_by_default():
    @click.command()
    @reported("dlq")
    def command():
        raise StoreUnavailable

    assert run(command).exit_code == 2


def test_an_error_that_is_not_expected_keeps_its_traceback():
    @click.command()
    @reported("dlq")
    def command():
        raise ValueError("a mistake")

    assert isinstance(run(command).exception, ValueError)


def test_a_command_without_its_app_shows_how_to_run_it():
    @click.command()
    def command():
        environment()

    done = run(command)

    assert done.exit_code == 2
    assert "celery -A celery_app" in done.stderr


def test_json_is_for_people_and_programs(capsys):
    echo_json({"a": [1, None]})
    text = capsys.readouterr().out

    assert json.loads(text) == {"a": [1, None]}
    assert len(text.splitlines()) > 1


@each("words", [(), ("--json",)])
def test_a_reported_command_keeps_its_options(words):
    @click.command()
    @click.option("--json", "as_json", is_flag=True)
    @reported("x")
    def command(as_json):
        click.echo(as_json)

    assert CliRunner().invoke(command, words).stdout == f"{bool(words)}\n"


def _unreachable(server):
    exc = StoreUnavailable(trouble=Trouble("Redis", "connection refused", "h:1/0")) if server == "Redis" else NotSent()
    exc.trouble = exc.trouble or Trouble("RabbitMQ", "its vhost does not exist", "u@h:1/v")
    return exc


@each(
    ("server", "expected"),
    [
        ("Redis", "dlq: Redis at h:1/0: connection refused"),
        ("RabbitMQ", f"dlq: {NotSent()} [RabbitMQ at u@h:1/v: its vhost does not exist]"),
    ],
)
def test_what_is_not_reachable_is_named_with_its_address_and_where_no_server_is_named_with_what_to_source(
    server, expected
):
    @click.command()
    @reported("dlq")
    def command():
        raise _unreachable(server)

    named = CliRunner().invoke(command, env={"DISPATCH_REDIS_URL": "redis://h:1/0"})
    unnamed = CliRunner().invoke(command, env={"DISPATCH_REDIS_URL": None})

    assert (named.exit_code, named.stderr) == (2, f"{expected}\n")
    assert unnamed.stderr.startswith(f"{expected}\nNo DISPATCH_… names a server, and no stack runs here")
    assert "set -a; . .run/env; set +a" in unnamed.stderr
