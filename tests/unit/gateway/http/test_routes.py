"""Routes build URLs as the rules of Werkzeug do, but compile that only when one is built."""

from werkzeug.routing import Map, Rule

from dispatch.gateway.application import Gateway
from dispatch.gateway.http.routes import Route
from support.cases import each
from support.gateway_fakes import World


def adapter(rule):
    routes = [rule("/tasks/<name>/<int:page>", endpoint="page"), rule("/", endpoint="top", defaults={"name": "a"})]
    return Map(routes).bind("robots.example")


@each(
    ("endpoint", "values"),
    [("page", {"name": "a/ü", "page": 2}), ("page", {"name": "a", "page": 3, "more": "x y"}), ("top", {"q": "1"})],
)
def test_a_url_is_that_of_a_rule_of_werkzeugs(endpoint, values):
    built = adapter(Route).build(endpoint, values)

    assert built == adapter(Rule).build(endpoint, values)


def test_an_application_compiles_no_builder(monkeypatch):
    compiled = []
    monkeypatch.setattr(Rule, "_compile_builder", lambda rule, *_: compiled.append(rule))
    app = World().app()

    assert Gateway.url_rule_class is Route
    assert len(list(app.url_map.iter_rules())) > 80
    assert compiled == []
