"""Figures of a small tree with known folders, arrows, lengths and words."""

import ast
import json
from pathlib import Path, PurePosixPath

import pytest

from tools import definitions, house, import_graph, prose, source_tree
from tools.source_tree import Module

ROOT = Path(__file__).parents[3]

TREE = {
    "app.py": '''
"""Entry."""
import dispatch.gateway.views
from dispatch import errors
''',
    "topology.py": "from dispatch import errors\n",
    "dispatch/__init__.py": "",
    "dispatch/errors.py": '''
"""Nobody tells; he said a word."""
class Problem(Exception):
    """Swords and words are other words."""
''',
    "dispatch/settings.py": """
from pydantic import Field
class BrokerSettings:
    model_config = {}
    url: str = Field("x")
    limit: int = 3
    required: str
class Other:
    field: int = 1
""",
    "dispatch/gateway/__init__.py": "",
    "dispatch/gateway/views.py": """
from typing import TYPE_CHECKING
from . import problems
from ..settings import BrokerSettings
from dispatch.worker import runner
if TYPE_CHECKING:
    from dispatch import errors
""",
    "dispatch/gateway/problems.py": '''
class Problem: ...
def late():
    """Import late.

    Not at the start.
    """
    from dispatch import errors

    return errors
''',
    "dispatch/worker/runner.py": """
import tasks
# says who
def run():
    def inner():
        return 1
    return inner
""",
    "dispatch/store/lua/claim.lua": "local a = '-- told' -- Somebody told\n--[[ whoever\nelse ]]\n",
    "tasks/__init__.py": "from tasks.echo import echo\n",
    "tasks/echo.py": "from dispatch.errors import Problem as P\ndef echo(): ...\n",
    "tests/test_it.py": "import app\n# somebody\ndef test_it_says_so(): ...\n",
    "bench/slow.py": "import app\n",
}


@pytest.fixture
def root(tmp_path):
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.removeprefix("\n"))
    return tmp_path


@pytest.fixture
def measured(root):
    return house.measure(root)


def module(text, path="dispatch/one.py"):
    return Module(PurePosixPath(path), text)


def graph_of(**texts):
    return import_graph.imports([module(text, f"{name.replace('_', '/')}.py") for name, text in texts.items()])


def test_a_folder_is_a_directory_with_modules_and_an_init_is_none(measured):
    folders = measured.folders

    assert (folders.count, folders.modules, folders.mean) == (5, 8, 8 / 5)


def test_the_largest_folder_is_named(measured):
    assert measured.folders.most == 2
    assert measured.folders.largest in {".", "dispatch", "dispatch/gateway"}


def test_tests_and_benchmarks_are_not_measured(root):
    assert {each.path.parts[0] for each in source_tree.modules(root)} == {"app.py", "topology.py", "dispatch", "tasks"}


def test_each_root_file_and_each_module_directly_in_dispatch_is_a_room_of_its_own(root):
    rooms = {each.room for each in source_tree.modules(root)}

    assert rooms == {
        *("app", "topology", "dispatch.errors", "dispatch.settings"),
        *("dispatch.gateway", "dispatch.worker", "tasks", None),
    }


def test_arrows_between_rooms_are_counted_once_each(measured):
    # app > gateway, errors; topology > errors; gateway > settings, worker, errors; worker > tasks; tasks > errors
    assert (measured.imports.rooms, measured.imports.room_arrows) == (7, 8)


def test_arrows_between_folders_are_counted_once_each(measured):
    # . > gateway, dispatch; gateway > dispatch, worker; worker > tasks; tasks > dispatch
    assert measured.imports.folder_arrows == 6


def test_the_longest_chain_of_rooms_is_the_number_of_floors(measured):
    assert measured.imports.chain == ["app", "dispatch.gateway", "dispatch.worker", "tasks", "dispatch.errors"]
    assert house.as_json(measured)["imports"]["floors"] == 5


def test_the_mean_of_own_imports_counts_distinct_modules(measured):
    # app 2, topology 1, views 3, problems 1, runner 1, echo 1
    assert measured.imports.mean == 9 / 8


@pytest.mark.parametrize(
    "text",
    [
        "import b",
        "import b as c",
        "from b import anything",
        "def f():\n  import b",
        "try:\n  import b\nexcept ImportError: ...",
        "if TYPE_CHECKING: ...\nelse:\n  import b",
        "if True:\n  import b",
    ],
)
def test_an_import_is_found_wherever_it_stands(text):
    assert graph_of(a=text, b="") == {"a": {"b"}, "b": set()}


@pytest.mark.parametrize("guard", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_an_import_for_type_checkers_is_no_import(guard):
    assert graph_of(a=f"if {guard}:\n  import b", b="")["a"] == set()


def test_a_module_that_a_package_is_asked_for_is_the_target_and_not_the_package():
    modules = [module("from p import b, name", "a.py"), module("", "p/__init__.py"), module("", "p/b.py")]

    assert import_graph.imports(modules)["a"] == {"p", "p.b"}


def test_relative_imports_start_from_the_package():
    modules = [
        module("from .. import x\nfrom .c import d", "p/q/b.py"),
        module("from . import c", "p/q/__init__.py"),
        module("", "p/q/c.py"),
        module("", "p/x.py"),
    ]

    assert import_graph.imports(modules) == {"p.q.b": {"p.x", "p.q.c"}, "p.q": {"p.q.c"}, "p.q.c": set(), "p.x": set()}


def test_modules_that_import_one_another_are_a_circle():
    graph = graph_of(a="import b", b="import c", c="import b", d="import a")

    assert import_graph.circles(graph) == [["b", "c"]]


def test_a_circle_is_one_step_of_the_longest_chain():
    graph = graph_of(a="import b", b="import c", c="import b\nimport d", d="")

    assert import_graph.longest_chain(graph) == ["a", "b=c", "d"]


def test_a_tree_without_circles_has_none(measured):
    assert (measured.imports.circles, measured.imports.room_circles) == ([], [])


def test_a_module_is_as_long_as_its_file(measured):
    lines = measured.module_lines

    assert (lines.most, lines.longest) == (9, "dispatch.gateway.problems")


def test_a_function_is_as_long_as_its_body_without_the_docstring(measured):
    # late 3, run 3, inner 1, echo 1
    lines = measured.function_lines

    assert (lines.median, lines.p90, lines.most) == (2, 3, 3)
    assert lines.longest == "dispatch.gateway.problems:late@2"


def test_class_names_of_several_modules_are_listed(measured):
    assert measured.repeated_classes == {"Problem": 2}


def test_settings_are_the_fields_with_a_default_in_settings_classes(measured):
    assert measured.settings == 2


def test_settings_are_also_found_in_the_config_folder(root):
    text = "class WorkerSettings:\n  one: int = 1\n"
    (root / "dispatch/config").mkdir()
    (root / "dispatch/config/worker.py").write_text(text)

    assert house.measure(root).settings == 3


def test_conversational_words_are_counted_in_docstrings_comments_and_lua_of_dispatch(measured):
    assert measured.prose.counts == {
        "says": 1,
        "said": 1,
        "told": 1,
        "tells": 1,
        "somebody": 1,
        "whoever": 1,
        "nobody": 1,
        "he": 1,
        "word": 1,
    }


def test_words_are_counted_for_each_thousand():
    found = prose.measure([module('"""He came home and slept."""\nhe = "he"\n')], ["-- one two three four told"])

    assert found == prose.Prose(10, {"told": 1, "he": 1})
    assert found.per_thousand == 200


def test_words_of_the_tests_are_counted_apart_with_those_of_test_names(measured):
    assert measured.tests_prose == prose.Prose(4, {"says": 1, "somebody": 1})
    assert house.as_json(measured)["tests_prose"]["per_thousand"] == 500


def test_a_lua_string_is_no_comment():
    assert prose.measure([], ['x = "a -- told" -- b']).counts == {}


def test_nothing_is_imported_from_the_tree(root):
    (root / "dispatch/errors.py").write_text("raise SystemExit\n")

    assert house.measure(root).folders.modules == 8


def test_a_directory_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no checkout"):
        house.measure(tmp_path)


def test_json_and_table_are_printed_for_any_root(root, capsys):
    house.main([str(root), "--json"])
    figures = json.loads(capsys.readouterr().out)
    house.main([str(root)])
    lines = capsys.readouterr().out.splitlines()

    assert figures["imports"]["room_arrows"] == 8
    assert f"{'import arrows between rooms':<38}{8:>7}" in lines


def test_a_tree_is_parsed_once(root):
    one = source_tree.modules(root)[0]

    assert isinstance(one.tree, ast.Module)
    assert one.tree is one.tree


def test_this_project_has_no_conversational_words():
    own = [module for module in source_tree.modules(ROOT) if module.path.parts[0] == "dispatch"]
    tests = [module for module in source_tree.test_modules(ROOT) if module.path.name != "test_house.py"]
    scripts = source_tree.lua_scripts(ROOT).values()

    assert (prose.measure(own, scripts).counts, prose.measure(tests).counts) == ({}, {})


def test_this_project_has_each_class_name_once():
    assert definitions.repeated_classes(source_tree.modules(ROOT)) == {}
