"""What a peer's endpoint validates: the same fields as ours."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PeerEcho(BaseModel):
    """The payload of an `echo`."""

    model_config = ConfigDict(extra="forbid")

    message: str = Field(max_length=10_000)
    sleep_seconds: float = Field(0, ge=0, le=3_600)
    fail_times: int = Field(0, ge=0, le=1_000)
    permanent: bool = False


class PeerBody(BaseModel):
    """A submission."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["echo"]
    payload: PeerEcho
