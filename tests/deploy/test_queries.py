"""Rules and dashboards ask for our metrics, by labels that they have."""

import re

from support import deploy

QUERIES = [*deploy.queries(), *(rule["expr"] for rule in deploy.rules())]

#: What Prometheus adds, and what a histogram's buckets have.
ADDED = {"job", "instance", "le"}


def test_every_metric_that_is_asked_for_is_one_of_ours():
    asked = {name.removesuffix("_bucket") for query in QUERIES for name in deploy.METRIC.findall(query)}

    assert asked - deploy.METRICS.keys() == set()


def test_every_metric_of_ours_is_shown_or_watched():
    asked = {name.removesuffix("_bucket") for query in QUERIES for name in deploy.METRIC.findall(query)}

    assert deploy.METRICS.keys() - asked == set()


def test_metrics_are_chosen_by_labels_that_they_have():
    wrong = [
        (name, label)
        for query in QUERIES
        for name, chosen in re.findall(r"(?<![\w:])(robot_\w+)\{((?:[^{}]|\{\w+\})*)\}", query)
        for label in re.findall(r"(\w+)(?:=~|!=|!~|=)[\"']", chosen)
        if label not in deploy.METRICS[name.removesuffix("_bucket")] | ADDED
    ]

    assert wrong == []


def test_sums_are_by_labels_that_their_metric_has():
    wrong = [
        (name, label)
        for query in QUERIES
        for by, name in re.findall(r"by \(([\w, ]+)\) \((?:rate\()?(robot_\w+)", query)
        for label in by.split(", ")
        if label not in deploy.METRICS[name.removesuffix("_bucket")] | ADDED
    ]

    assert wrong == []
