"""The rate limits of a request: what the gate is to count it under, and how a refusal by one of them is told.

A limit counts within one organization, whoever set it: everything of an organization is in one partition of the gate, so all
limits of a request are checked there in one step, exactly, with the budgets. A model's own limits are those of each
organization by itself.
"""

from typing import Any

from commands.gate import RateClaim, Refused
from domain.budget import Scope
from domain.limits import KINDS, Limits
from domain.scope import Caller, PublishedModel

_COUNTED = {"requests": "requests per minute", "tokens": "tokens per minute", "concurrent": "requests at a time"}


def rate_claims(caller: Caller, model: PublishedModel) -> tuple[RateClaim, ...]:
    """What is counted of a request of `model`: the narrowest scope first, so that a key at its own limit is told so."""
    claims: list[RateClaim] = []
    for each in caller.limits:
        sharer = None if each.scope.kind == "key" else caller.key
        claims += _claims(f"{caller.org}/{_path(each.scope)}", each.limits, sharer)
    if (of_model := caller.model_limits.get(model.id)) is not None:
        claims += _claims(f"{caller.org}/org-model/{model.id}", of_model, caller.key)
    claims += _claims(f"{caller.org}/model/{model.id}", model.limits, caller.key)
    return tuple(claims)


def refusal_of(refused: Refused) -> str:
    """What a request that a rate limit refused is told."""
    claim = refused.rate
    if claim is None:
        return "rate limit reached"
    named = f"{claim.limit} {_COUNTED[claim.kind]} of {_place(claim)}"
    if refused.retry_after is not None:
        shared = "" if claim.sharer is None else ", which its keys share"
        return f"rate limit reached: {named}{shared}"
    if claim.kind == "tokens":
        return f"request too large for the limit of {named}: it can never pass; send less, or ask for less output"
    return f"the limit is {named}: no request can ever pass"


def limit_document(claim: RateClaim) -> dict[str, Any]:
    """The limit as a document: ``{"scope": {"kind", "id"}, "model", "name", "value"}``."""
    kind, id, model = _scope(claim)
    return {"scope": {"kind": kind, "id": id}, "model": model, "name": KINDS[claim.kind], "value": claim.limit}


# -- stored format: the gate's keys. <org>/<key id>/<kind>, <org>/org/<kind>, <org>/<user, project>/<id>/<kind>, and for models
# <org>/org-model/<model>/<kind> (what the organization allows itself) and <org>/model/<model>/<kind> (the model's own).


def _path(scope: Scope) -> str:
    match scope.kind:
        case "org":
            return "org"
        case "key":
            return f"{scope.id}"
        case kind:
            return f"{kind}/{scope.id}"


def _claims(prefix: str, limits: Limits, sharer: str | None) -> list[RateClaim]:
    return [RateClaim(f"{prefix}/{kind}", kind, limit, sharer) for kind, limit in limits.in_force()]


def _scope(claim: RateClaim) -> tuple[str, str | None, str | None]:
    """Kind and id of the scope, and the model if it is of one only."""
    _, where, *named = claim.key.split("/")
    if where in ("model", "org-model"):
        return "org", None, named[0]
    if where in ("user", "project"):
        return where, named[0], None
    return ("org", None, None) if where == "org" else ("key", where, None)


def _place(claim: RateClaim) -> str:
    org = claim.key.partition("/")[0]
    kind, id, model = _scope(claim)
    if model is not None:
        return f"model {model} in organization {org}"
    return f"organization {org}" if kind == "org" else f"{kind} {id}"
