"""Rate limits: how much may be asked for in a minute, and at a time. Of a key, a user, a project, an organization, a model."""

from collections.abc import Mapping
from typing import TypeVar

from msgspec import Struct

from domain.errors import invalid
from domain.inputs import at_least, model_id

KINDS: Mapping[str, str] = {
    "requests": "requests_per_minute",
    "tokens": "tokens_per_minute",
    "concurrent": "concurrent",
}
"""What a limit counts, and the name it is set by."""

MOST_MODELS = 1000
"""That an organization limits one by one."""


class Limits(Struct, frozen=True, kw_only=True):
    """`requests_per_minute` and `tokens_per_minute` count what was admitted in any 60 seconds, `concurrent` requests under
    way; None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None

    def in_force(self) -> list[tuple[str, int]]:
        """Each limit there is, by its kind."""
        return [(kind, limit) for kind, name in KINDS.items() if (limit := getattr(self, name)) is not None]


class OrganizationLimits(Limits, frozen=True, kw_only=True):
    """What an organization may use of everything, and of each model."""

    models: dict[str, Limits] = {}


UNLIMITED = Limits()


AnyLimits = TypeVar("AnyLimits", bound=Limits)


def checked(limits: AnyLimits, field: str = "limits") -> AnyLimits:
    """`limits`. Raises `Invalid` naming the part of `field` at fault."""
    for name in KINDS.values():
        at_least(1, getattr(limits, name), f"{field}.{name}")
    if isinstance(limits, OrganizationLimits):
        if len(limits.models) > MOST_MODELS:
            raise invalid(f"{field}.models", f"must be at most {MOST_MODELS}")
        for model, of_model in limits.models.items():
            checked(of_model, f"{field}.models.{model_id(model, f'{field}.models')}")
    return limits
