"""``/v1/dead-letters/groups``: what the dead letters died of, with the filter by which each group is redriven or discarded."""

from __future__ import annotations

from dispatch.config import api_keys as keys
from dispatch.deadletters.groups import survey_groups
from dispatch.deadletters.service import DeadLetterService
from dispatch.gateway.contract import request_models, response_models
from dispatch.gateway.http import validation
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.protocol.dead_letters import DeadLetterFilter

#: Dead letters that one request looks at, about, and seconds for which it does: the rest has a cursor.
MOST, SECONDS = 20_000, 2.0


class DeadLetterGroupViews:
    """The operation on groups of dead letters.

    Args:
        service: the operator's verbs.
    """

    def __init__(self, service: DeadLetterService) -> None:
        self._service = service

    @operation(
        Operation(
            "GET", "/v1/dead-letters/groups", "listDeadLetterGroups", "Dead letters", "Group the dead letters by what they died of",
            (ResponseSpec(200, "The groups.", response_models.DeadLetterGroupsModel, ("Cache-Control",)),),
            scope=keys.DEADLETTERS_READ,
            description="A group is what has the same type, error type and fingerprint of the error's message, in which ids, numbers, "
            "quoted texts and addresses do not count. `filter` selects exactly these in `GET /v1/dead-letters` and in a redrive of "
            "many. One request looks at the newest 20,000 dead letters, or for two seconds; with `cursor` at the ones that follow, so "
            "that the counts of a group add up. `complete` is true where nothing is left out.",
            query=request_models.DeadLetterGroupQuery,
        )
    )  # fmt: skip
    def index(self) -> Reply:
        """What they died of."""
        query = validation.read_query(request_models.DeadLetterGroupQuery)
        found = validation.page(
            lambda: survey_groups(
                self._service, filter_of(query), shown=query.limit, most=MOST, seconds=SECONDS, cursor=query.cursor
            )
        )
        complete = query.cursor is None and found.next is None and not found.not_shown
        return json_reply({
            "items": [group.to_json() for group in found.groups],
            "grouped": found.grouped, "notShown": found.not_shown, "complete": complete, "next": found.next,
        })  # fmt: skip


def filter_of(given: request_models.DeadLetterQuery | request_models.LetterFilter) -> DeadLetterFilter:
    """The filter that a request names."""
    return DeadLetterFilter(given.type, given.error_type, fingerprint=given.fingerprint)
