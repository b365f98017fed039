"""Every scope with every route: a route is open to the scopes that are for it, and closed to all others."""

import re

from dispatch.config import api_keys
from dispatch.gateway.application import operations
from support.gateway_fakes import World

PEPPER = "pepper"

#: The scopes that open routes of another scope, besides the scope itself.
ALSO = {
    "tasks:read": {"tasks:read-all"},
    "tasks:write": {"tasks:write:greet"},
}

#: Sent with every request: what they lack is found out after the scope.
BODIES = {"POST", "PUT", "DELETE"}


def test_a_route_is_open_to_its_scopes_alone():
    granted = [*api_keys.SCOPES, "tasks:write:greet"]
    tokens = {scope: api_keys.token(f"id-{number}", "s" * 43) for number, scope in enumerate(granted)}
    entries = tuple(
        str(api_keys.ApiKey(f"id-{number}", api_keys.digest(PEPPER, tokens[scope]), frozenset({scope})))
        for number, scope in enumerate(granted)
    )
    client = World(options={"api_keys": entries, "api_key_pepper": PEPPER}).client()
    wrong = []
    for contract in operations():
        path = re.sub(r"\{\w+\}", "nothing", contract.path)
        for scope in granted:
            body = {"json": {}} if contract.method in BODIES else {}
            answer = client.open(
                path, method=contract.method, headers={"Authorization": f"Bearer {tokens[scope]}"}, **body
            )
            closed = "insufficient-scope" in answer.text and answer.status_code == 403
            wanted = contract.scope is not None and scope not in {
                contract.scope,
                contract.or_scope,
                *ALSO.get(contract.scope, ()),
            }
            if closed != wanted:
                wrong.append((contract.id, scope, answer.status_code))
        if contract.scope is not None and client.open(path, method=contract.method).status_code != 401:
            wrong.append((contract.id, "no key"))

    assert wrong == []
