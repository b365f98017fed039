"""The client against the gateway's own contract: paths, names, slugs. What the client lacks is no error, what it invents is."""

import ast
import inspect

import pytest

import robot_dispatch_client
import tasks
from dispatch import tasktypes
from dispatch.gateway import application
from dispatch.gateway.contract import openapi
from dispatch.gateway.http import problems
from dispatch.protocol.record import State
from robot_dispatch_client import errors, models
from robot_dispatch_client.testing import replies
from support.cases import each

COMPONENTS = {
    "Task": models.Task, "DeadLetterDetail": models.DeadLetter, "Progress": models.Progress, "TaskError": models.TaskError,
    "Payload": models.Payload, "Rung": models.Rung, "TaskType": models.TaskType, "Queue": models.Queue, "Worker": models.Worker,
    "TypeCounts": models.TypeCounts, "ErrorCount": models.ErrorCount, "Stats": models.Stats, "DeadLetterFilter": models.LetterFilter,
    "DeadLetterGroup": models.DeadLetterGroup, "BulkAnswer": models.BulkRedrive, "Pause": models.Pause, "AuditEntry": models.AuditEntry,
    "Schedule": models.Schedule, "Job": models.Job, "JobCount": models.JobCount, "Key": models.Key, "KeyHolder": models.KeyHolder,
    "Webhook": models.Webhook, "LastRun": models.ScheduleRun, "Event": models.Event, "Verdict": models.VerdictBody,
}  # fmt: skip


#: Problems of `POST /v1/callbacks/{token}`, and of the console, which no verb is for.
OF_NO_VERB = {"callback-not-found", "callback-over", "too-many-callbacks", "forged-request"}


@pytest.fixture(scope="module")
def document():
    return openapi.document(application.operations(), tasktypes.load(tasks))


def test_every_member_that_the_client_names_is_in_the_document(document):
    schemas = document["components"]["schemas"]
    for name, model in COMPONENTS.items():
        named = {field.alias for field in model.model_fields.values()}

        assert named <= schemas[name]["properties"].keys(), name


def test_states_are_those_of_records():
    assert {state.value for state in models.State} >= {state.value for state in State}


def test_every_problem_has_an_error_of_its_own():
    assert set(problems.KINDS) - set(errors.BY_SLUG) == {*OF_NO_VERB, "method-not-allowed"}


@each("kind", [kind for kind in problems.KINDS.values() if kind.slug in errors.BY_SLUG])
def test_an_error_has_the_status_of_its_problem(kind):
    by_status = type(errors.of_problem(errors.Problem(kind.status, "/problems/of-a-later-version")))

    assert issubclass(errors.BY_SLUG[kind.slug], by_status)


def test_the_fake_has_the_statuses_of_the_api():
    known = {slug: kind.status for slug, kind in problems.KINDS.items()}

    assert {slug: status for slug, status in replies.STATUS.items() if slug in known and known[slug] != status} == {}
    assert known.keys() - replies.STATUS.keys() == OF_NO_VERB


def test_what_the_package_exports_is_there_and_all_errors_are_exported():
    exported = set(robot_dispatch_client.__all__)
    defined = {node.name for node in ast.parse(inspect.getsource(errors)).body if isinstance(node, ast.ClassDef)}

    assert all(hasattr(robot_dispatch_client, name) for name in exported)
    assert defined <= exported
