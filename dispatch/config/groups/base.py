"""What the groups of settings are made of."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
from pydantic import Field, SecretStr

from dispatch.config import tls

Names = tuple[str, ...]
OptionalSecret = Annotated[SecretStr | None, Field(repr=False)]
PortNumber = Annotated[int, Field(ge=0, le=65_535)]


class Group(pydantic.BaseModel):
    """Base of the groups: frozen, unknown fields refused, no value in an error."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True, defer_build=True
    )


def check_pair(info: pydantic.ValidationInfo, prefix: str, key: str) -> None:
    """Check a client's certificate, a field before, with its key; one that was refused by itself is not there."""
    if (cert := info.data.get(f"{prefix}_cert")) is not None:
        tls.check_pair(cert, key, f"DISPATCH_{prefix.upper()}_CERT")


def names(value: Any) -> Any:
    """A comma-separated text as a tuple; anything else as it is."""
    return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value
