"""What pages name is there: settings, make targets, commands and their options, routes, metrics, alerts, files."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

import click

from tools.docs.pages import SHELLS, Block, Page

#: Variables of the tests, of the launcher, and of Kubernetes' service links: no settings.
_OTHER_VARIABLES = re.compile(r"DISPATCH_(TEST_\w+|HTTP_URL|PORT|SERVICE_HOST)")

_VARIABLE = re.compile(r"\bDISPATCH_[A-Z0-9_]*[A-Z0-9]\b(?!_?[*<{…])")
_TARGET = re.compile(r"(?:^|[\s;&(])make ([a-z][a-z0-9-]*)")
_ROUTE = re.compile(
    r"(?:\b(?:GET|POST|DELETE) |_URL|:8080)(/(?:v1|livez|readyz|metrics|problems|openapi\.json|docs)[^\s`\"'?)]*)"
)
_METRIC = re.compile(r"\brobot_[a-z_]+[a-z](?=[{\s)`,]|$)")
_ALERT = re.compile(r"\bRobot[A-Z][a-z]+\w*\b")
_FILE = re.compile(r"(?:[\w.-]+/)+[\w.-]*\.(?:py|md|yml|yaml|conf|config|json|sh|toml|html|lua)")

#: Folders of a machine or a run, which no checkout has.
_ELSEWHERE = ("/", ".run/", ".venv/", "dist/")

#: Without options, none of which takes a service's name but ``--scale``.
_COMPOSE = re.compile(r"docker compose (exec|run|up|stop|start|restart|logs)([^\n#;|&]*)")

_PROGRAMS = ("celery", "dispatch")
_OURS = frozenset({"dlq", "jobs", "topology", "queues", "schedules", "tasks"})
_SEPARATORS = re.compile(r"\|\||&&|[|;()]|\$\(")


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What there is."""

    files: tuple[str, ...]  #: their paths in the checkout, each with a slash before it
    settings: frozenset[str]
    targets: frozenset[str]
    routes: frozenset[str]
    metrics: frozenset[str]
    alerts: frozenset[str]
    services: frozenset[str]  #: of the compose file
    commands: Mapping[str, click.Command]  #: by program


def problems(page: Page, known: Vocabulary) -> Iterator[str]:
    """What a page names and what is not there.

    Args:
        page: the page.
        known: what there is.
    """
    code = [*page.spans, *(block.text for block in page.blocks)]
    for name in _missing(_VARIABLE, [page.text], known.settings):
        if not _OTHER_VARIABLES.fullmatch(name):
            yield f"{page.path}: there is no setting {name}"
    for target in _missing(_TARGET, code, known.targets):
        yield f"{page.path}: there is no make target {target}"
    for route in dict.fromkeys(found for text in code for found in _ROUTE.findall(text)):
        if not any(_is_route(route, template) for template in known.routes):
            yield f"{page.path}: the API has no {route}"
    for metric in _missing(_METRIC, page.spans, known.metrics):
        yield f"{page.path}: there is no metric {metric}"
    for alert in _missing(_ALERT, [page.prose], known.alerts):
        yield f"{page.path}: there is no alert {alert}"
    yield from _files(page, known.files)
    for service in dict.fromkeys(service for text in code for service in _services(text)):
        if service not in known.services:
            yield f"{page.path}: the compose file has no service {service}"
    yield from _commands(page, known.commands)


def _missing(pattern: re.Pattern[str], texts: Iterable[str], known: frozenset[str]) -> Iterator[str]:
    yield from dict.fromkeys(name for text in texts for name in pattern.findall(text) if name not in known)


def _is_route(route: str, template: str) -> bool:
    asked, segments = route.rstrip("/.").split("/"), template.split("/")
    return len(asked) == len(segments) and all(
        given == segment or segment.startswith("{") for given, segment in zip(asked, segments, strict=True)
    )


def _files(page: Page, files: Sequence[str]) -> Iterator[str]:
    """A page may leave out the first folders of a path."""
    written = {block.path for block in page.blocks}
    for path in dict.fromkeys(span.partition("::")[0] for span in page.spans):
        of_the_checkout = _FILE.fullmatch(path) and path not in written and not path.startswith(_ELSEWHERE)
        if of_the_checkout and not any(file.endswith(f"/{path}") for file in files):
            yield f"{page.path}: there is no file {path}"


def _services(text: str) -> Iterator[str]:
    """What `docker compose` is told to act on: one service before a command, or several."""
    for verb, rest in _COMPOSE.findall(text.replace("\\\n", " ")):
        names = [word.partition("=")[0] for word in rest.split() if re.fullmatch(r"[a-z][a-z-]*(=\d+)?", word)]
        yield from names[:1] if verb in {"exec", "run"} else names


def _commands(page: Page, programs: Mapping[str, click.Command]) -> Iterator[str]:
    shells = (block for block in page.blocks if block.language in SHELLS and block.mark != "output")
    places = [*((block.place, _lines(block)) for block in shells), (str(page.path), list(page.spans))]
    for place, lines in places:
        for words in (words for line in lines for words in _invocations(line)):
            if problem := _wrong(programs[words[0]], words[1:]):
                yield f"{place}: {' '.join(words)}: {problem}"


def _lines(block: Block) -> list[str]:
    return block.script.replace("\\\n", " ").splitlines()


def _invocations(line: str) -> Iterator[list[str]]:
    """The commands of ours, or Celery's, in a line of shell or in a span of code."""
    for part in _SEPARATORS.split(line):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:  # a quotation that goes on in the next line
            continue
        if words and words[0] in _OURS:
            words.insert(0, "celery")
        for program in _PROGRAMS:
            if program in words[:1] or (program in words and words[0] in {"docker", "REMAP_SIGTERM=SIGQUIT"}):
                yield words[words.index(program) :]


def _wrong(command: click.Command, words: Sequence[str]) -> str | None:
    """What of a command line does not exist; None: nothing."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if "…" in word or word.startswith("<"):
            continue
        if word.startswith("-"):
            option = _option(command, word.partition("=")[0])
            if option is None:
                return f"{command.name} has no option {word}"
            if "=" not in word and not option.is_flag and rest:
                rest.pop(0)
        elif isinstance(command, click.Group):
            found = command.commands.get(word)
            if found is None:
                return f"{command.name} has no command {word}"
            command = found
    return None


def _option(command: click.Command, word: str) -> click.Option | None:
    if word == "--help":
        return click.Option(["--help"], is_flag=True)
    options = (each for each in command.params if isinstance(each, click.Option))
    return next((each for each in options if word in (*each.opts, *each.secondary_opts)), None)
