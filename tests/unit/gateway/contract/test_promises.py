"""What the contract names is what some code produces: problem types, states, hops."""

import ast
import re
from pathlib import Path

import pytest

from dispatch.gateway.http import problems
from dispatch.protocol.record import State
from support.gateway_fakes import World

ROOT = Path(__file__).parents[4]
SOURCES = {path: path.read_text() for path in (ROOT / "dispatch").rglob("*.py")}
LUA = "\n".join(path.read_text() for path in (ROOT / "dispatch/store/lua/task").glob("*.lua"))
REFERENCE = (ROOT / "docs/reference/http-api.md").read_text()

#: They name problems without producing one.
CONTRACT = ("gateway/http/problems.py", "gateway/contract/openapi.py")


class Slugs(ast.NodeVisitor):
    """The texts of a module that may be slugs, but for those in the contracts of operations."""

    def __init__(self):
        self.texts, self.raised = set(), set()

    def visit_keyword(self, node):
        if node.arg != "problems":
            self.generic_visit(node)

    def visit_Constant(self, node):
        self.texts.add(node.value)

    def visit_Call(self, node):
        name, first = getattr(node.func, "id", ""), node.args[:1]
        if name == "Problem" and first and isinstance(first[0], ast.Constant):
            self.raised.add(first[0].value)
        self.generic_visit(node)


@pytest.fixture(scope="module")
def produced():
    found = Slugs()
    for path, source in SOURCES.items():
        if "gateway" in path.parts and not path.as_posix().endswith(CONTRACT):
            found.visit(ast.parse(source))
    return found


def test_every_problem_type_is_produced_and_every_produced_one_is_explained(produced):
    assert set(problems.KINDS) - produced.texts == set()
    assert produced.raised - set(problems.KINDS) == set()
    assert len(produced.raised) > 20


def test_the_states_of_the_document_are_those_that_a_task_can_be_in():
    (shown,) = re.findall(
        r'"State":\{[^{}]*"enum":\[([^\]]*)\]', World().client().get("/openapi.json").text.replace(" ", "")
    )
    named = {
        state
        for path, source in SOURCES.items()
        if "store" in path.parts
        for state in re.findall(r"State\.([A-Z_]+)", source)
    }
    named |= set(re.findall(r"'state', '([A-Z_]+)'", LUA))

    assert set(re.findall(r"[A-Z_]+", shown)) == named
    assert named <= {state.value for state in State}


def test_every_hop_is_explained_and_every_explained_hop_is_written():
    written = {kind for source in SOURCES.values() for kind in re.findall(r'\bhop\(\s*"([a-z-]+)"', source)}
    written |= {kind for source in SOURCES.values() for kind in re.findall(r'\bsend\(\w+, \w+, "([a-z-]+)"', source)}
    written |= set(re.findall(r"kind = '([a-z-]+)'", LUA)) | {"delayed", "parked"}  # one or the other, by the decision
    _, _, table = REFERENCE.partition("| hop | when | with |\n")
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", table.partition("\n\n")[0], re.MULTILINE))

    assert explained == written
