"""Which scopes name task types, and which types they cover."""

from dispatch.config.type_scopes import is_valid, permits, permits_type
from support.cases import each


@each(
    ("scope", "valid"),
    [
        ("tasks:write:echo", True),
        ("tasks:write:robot.clean", True),
        ("tasks:write:robot.*", True),
        ("tasks:write:", False),
        ("tasks:write:*", False),
        ("tasks:write:robot*", False),
        ("tasks:write:.*", False),
        ("tasks:write:robot..clean", False),
        ("tasks:write:Robot", False),
        ("tasks:write:a:b", False),
        ("tasks:read:echo", False),
        ("queues:read:echo", False),
        ("echo", False),
    ],
)
def test_only_writing_names_types_each_whole_or_by_its_prefix(scope, valid):
    assert is_valid(scope) is valid


@each(
    ("granted", "type_name", "permitted"),
    [
        ({"tasks:write"}, "echo", True),
        ({"tasks:write:echo"}, "echo", True),
        ({"tasks:write:echo"}, "echo.loud", False),
        ({"tasks:write:robot.*"}, "robot.clean", True),
        ({"tasks:write:robot.*"}, "robot.arm.lift", True),
        ({"tasks:write:robot.*"}, "robot", False),
        ({"tasks:write:robot.*"}, "robotics.x", False),
        ({"tasks:write:robot.*", "tasks:write:echo"}, "echo", True),
        ({"tasks:read", "queues:read"}, "echo", False),
    ],
)
def test_a_type_is_covered_by_its_name_its_prefix_or_the_plain_scope(granted, type_name, permitted):
    assert permits_type(granted, "tasks:write", type_name) is permitted


@each(
    ("granted", "scope", "permitted"),
    [
        ({"tasks:write:robot.*"}, "tasks:write", True),
        ({"tasks:write"}, "tasks:write", True),
        ({"tasks:read"}, "tasks:write", False),
        ({"tasks:write:robot.*"}, "tasks:read", False),
        ({"deadletters:write"}, "tasks:write", False),
    ],
)
def test_an_operation_is_open_to_a_key_that_may_do_it_for_some_type(granted, scope, permitted):
    assert permits(granted, scope) is permitted
