"""Rate limits as resources show and take them. In a PATCH what is left out stays, and null removes a limit."""

from typing import Any, TypeVar

from pydantic import BaseModel

from api.admin.shapes import Body, Count
from domain.limits import KINDS, UNLIMITED, Limits, OrganizationLimits

AnyLimits = TypeVar("AnyLimits", bound=Limits)


class RateLimits(Body):
    """`requests_per_minute` and `tokens_per_minute` count any 60 seconds, `concurrent` requests under way; null: none."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrent: Count | None = None


class OrgRateLimits(RateLimits):
    """Of everything, and of each model by its name; a model that is null has no limits of its own any more."""

    models: dict[str, RateLimits | None] | None = None


class OrgRateLimitsOut(BaseModel):
    """As `OrgRateLimits`, of the models that are limited."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent: int | None
    models: dict[str, RateLimits]


def merged(before: AnyLimits, body: RateLimits | None) -> AnyLimits:
    """`before` with what `body` sets; None removes all."""
    if body is None:
        return type(before)()
    given = body.model_fields_set
    fields: dict[str, Any] = {name: getattr(body if name in given else before, name) for name in KINDS.values()}
    if isinstance(before, OrganizationLimits):
        fields["models"] = before.models
        if isinstance(body, OrgRateLimits) and "models" in given:
            fields["models"] = _merged_models(before.models, body.models)
    return type(before)(**fields)


def shown(limits: Limits) -> RateLimits:
    return RateLimits(**{name: getattr(limits, name) for name in KINDS.values()})


def shown_of_org(limits: OrganizationLimits) -> OrgRateLimitsOut:
    models = {model: shown(of_model) for model, of_model in limits.models.items()}
    return OrgRateLimitsOut(**shown(limits).model_dump(), models=models)


def _merged_models(before: dict[str, Limits], given: dict[str, RateLimits | None] | None) -> dict[str, Limits]:
    if given is None:
        return {}
    after = before | {model: merged(before.get(model, UNLIMITED), body) for model, body in given.items()}
    return {model: limits for model, limits in after.items() if limits != UNLIMITED}
