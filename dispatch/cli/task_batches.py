"""``celery -A celery_app tasks submit --batch FILE``: a file of tasks, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import click

from dispatch.cli.output import NOT_DONE, echo_line
from dispatch.cli.tables import visible
from dispatch.cli.task_submission import GatewayClient

#: Items of one request, and bytes of them together: what a gateway takes by default.
_ITEMS, _BYTES = 1_000, 4_000_000


class Line(NamedTuple):
    """A task of the file."""

    number: int  #: 1-based
    item: Mapping[str, Any]
    size: int  #: bytes


def submit(client: GatewayClient, lines: Iterable[str], *, keys: str, as_json: bool) -> None:
    """Submit the tasks of a file, and print a verdict for each.

    Args:
        client: of the gateway.
        lines: of the file; empty ones are passed over.
        keys: what the Idempotency-Keys of the lines begin with that have none.
        as_json: print the verdicts as the gateway gives them.

    Raises:
        click.BadParameter: a line is no JSON object; nothing of the batch that it would be in is submitted.
        TaskNotAccepted: the gateway refused a whole batch.
        GatewayUnreachable: it did not answer; repeated with the same ``keys``, no task is submitted twice.
        SystemExit: 1, a task was refused.
    """
    refused = 0
    for batch in _batches(_read(lines, keys)):
        verdicts = client.submit_many([line.item for line in batch], again=f"--idempotency-key {keys}")
        for line, verdict in zip(batch, verdicts, strict=True):
            refused += verdict.get("status") != 202
            _print(line.number, verdict, as_json=as_json)
    if refused:
        click.echo(f"{refused} refused; repeat with --idempotency-key {keys}: no task is submitted twice", err=True)
        raise SystemExit(NOT_DONE)


def _read(lines: Iterable[str], keys: str) -> Iterator[Line]:
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            item = json.loads(text)
            json.dumps(item, ensure_ascii=False, allow_nan=False).encode()  # as it will be sent
        except ValueError as exc:
            raise click.BadParameter(f"line {number} is no JSON: {exc}", param_hint="--batch") from None
        if not isinstance(item, dict):
            raise click.BadParameter(f"line {number} is no object", param_hint="--batch")
        yield Line(number, {"idempotencyKey": f"{keys}-{number}", **item}, len(text.encode()) + len(keys) + 64)


def _batches(lines: Iterable[Line]) -> Iterator[Sequence[Line]]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == _ITEMS or size + line.size > _BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += line.size
    if batch:
        yield batch


def _print(number: int, verdict: Mapping[str, Any], *, as_json: bool) -> None:
    task, problem = verdict.get("task") or {}, verdict.get("problem") or {}
    if as_json:
        echo_line({"line": number, **verdict})
    elif task:
        click.echo(f"{number}  {task['taskId']}  {task['status']}  {task['state']}")
    else:
        slug = str(problem.get("type", "")).rpartition("/")[2]
        wrong = [f"{each.get('pointer') or '/'}: {each.get('detail')}" for each in problem.get("errors", ())]
        click.echo(visible(f"{number}  {slug}: {'; '.join(wrong) or problem.get('detail')}"))
