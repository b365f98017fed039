"""Sends dead letters again, and drops some."""

from __future__ import annotations

from typing import Any

from support.chaos.operators.base import Operator

#: Redrives after which a dead letter is left where it is.
_OFTEN = 2


class Redriver(Operator):
    """Redrives and discards."""

    pause = (0.5, 2.0)

    def step(self) -> None:
        """One dead letter, or one group of them."""
        if self.rng.random() < 0.15:
            self._group()
            return
        known = [each for each in self.items("/v1/dead-letters?limit=20") if self._ours(each)]
        if not known:
            return
        task_id = self.rng.choice(known)["taskId"]
        how = self.rng.choice(["as it was", "as it was", "mended", "fresh", "discard"])
        if how == "discard":
            self.http.act("discardDeadLetter", "DELETE", f"/v1/dead-letters/{task_id}", task_id)
            return
        body = {"mended": self._mended(task_id), "fresh": {"fresh": True}}.get(how, {})
        request = {"json": body} if body else {}
        self.http.act("redriveDeadLetter", "POST", f"/v1/dead-letters/{task_id}/redrive", task_id, body, **request)

    def _ours(self, dead_letter: dict[str, Any]) -> bool:
        """Not poison, and not sent again too often already."""
        return dead_letter["taskId"] in self.notes.accepted and dead_letter["cycle"] < _OFTEN

    def _mended(self, task_id: str) -> dict[str, Any]:
        """The payload without what made it fail, where it has that."""
        order = self.notes.accepted[task_id]
        if order.type != "http.request":
            return {"fresh": True}
        wish = {"label": order.label, "note": {"mended": True}}
        return {"payload": {**order.payload, "json": wish}}

    def _group(self) -> None:
        """All that died of the same error; poison bears other types."""
        groups = [group for group in self.items("/v1/dead-letters/groups") if group["type"] == "http.request"]
        if groups:
            group = self.rng.choice(groups)
            wanted = {name: group[name] for name in ("type", "errorType", "fingerprint")}
            body = {"filter": wanted, "limit": 5, "ratePerSecond": 20}
            self.http.act("redriveDeadLetters", "POST", "/v1/dead-letters/redrive", group["type"], body, json=body)
