"""Which limits a request is counted under, and what a refusal by one of them says."""

import pytest

from api.router.limits import rate_headers
from commands.gate import RateClaim, Refused
from commands.rates import limit_document, rate_claims, refusal_of
from domain.budget import Scope
from domain.limits import Limits
from domain.scope import Caller, PublishedModel, ScopedLimits

ORG = Scope(kind="org")
MODEL = PublishedModel("m-1.0", (), 100, 1000, (), bound_exceeded=False, limits=Limits(concurrent=7))


def caller(*limits: ScopedLimits, **of_models: Limits) -> Caller:
    named = {name.replace("_", "-", 1).replace("_", "."): each for name, each in of_models.items()}
    return Caller("acme", "web", "usr_1", "key_1", 0, None, limits, (), 402, None, None, named)


def test_every_scope_of_a_request_is_counted_by_itself() -> None:
    """Key, user, project and organization, the model within the organization, and the model's own limits: the narrowest first.
    Keys share what is not their own."""
    who = caller(
        ScopedLimits(Scope(kind="key", id="key_1"), Limits(requests_per_minute=1, tokens_per_minute=2, concurrent=3)),
        ScopedLimits(Scope(kind="user", id="usr_1"), Limits(requests_per_minute=4)),
        ScopedLimits(Scope(kind="project", id="web"), Limits(tokens_per_minute=5)),
        ScopedLimits(ORG, Limits(concurrent=6)),
        m_1_0=Limits(requests_per_minute=8),
        m_2_0=Limits(requests_per_minute=9),
    )
    assert rate_claims(who, MODEL) == (
        RateClaim("acme/key_1/requests", "requests", 1),
        RateClaim("acme/key_1/tokens", "tokens", 2),
        RateClaim("acme/key_1/concurrent", "concurrent", 3),
        RateClaim("acme/user/usr_1/requests", "requests", 4, "key_1"),
        RateClaim("acme/project/web/tokens", "tokens", 5, "key_1"),
        RateClaim("acme/org/concurrent", "concurrent", 6, "key_1"),
        RateClaim("acme/org-model/m-1.0/requests", "requests", 8, "key_1"),
        RateClaim("acme/model/m-1.0/concurrent", "concurrent", 7, "key_1"),
    )


@pytest.mark.parametrize(
    ("key", "scope", "model", "told"),
    [
        ("acme/key_1/requests", {"kind": "key", "id": "key_1"}, None, "of key key_1"),
        ("acme/user/usr_1/requests", {"kind": "user", "id": "usr_1"}, None, "of user usr_1"),
        ("acme/project/web/requests", {"kind": "project", "id": "web"}, None, "of project web"),
        ("acme/org/requests", {"kind": "org", "id": None}, None, "of organization acme"),
        ("acme/org-model/m/requests", {"kind": "org", "id": None}, "m", "of model m in organization acme"),
        ("acme/model/m/requests", {"kind": "org", "id": None}, "m", "of model m in organization acme"),
    ],
)
def test_the_limit_in_the_way_is_named(key: str, scope: dict[str, str | None], model: str | None, told: str) -> None:
    """In words and as a document."""
    claim = RateClaim(key, "requests", 5)
    message = refusal_of(Refused("rate_limit_exceeded", rate=claim, retry_after=1.0))
    assert message == f"rate limit reached: 5 requests per minute {told}"
    assert limit_document(claim) == {"scope": scope, "model": model, "name": "requests_per_minute", "value": 5}


@pytest.mark.parametrize(
    ("kind", "wait", "told"),
    [
        ("tokens", 3.0, "rate limit reached: 5 tokens per minute of key k"),
        ("tokens", None, "5 tokens per minute of key k: it can never pass"),
        ("requests", None, "5 requests per minute of key k: no request can ever pass"),
        ("concurrent", 1.0, "rate limit reached: 5 requests at a time of key k"),
    ],
)
def test_a_refusal_says_whether_waiting_helps(kind: str, wait: float | None, told: str) -> None:
    """And in which unit the limit is."""
    message = refusal_of(Refused("rate_limit_exceeded", rate=RateClaim(f"acme/k/{kind}", kind, 5), retry_after=wait))
    assert told in message


def test_headers_tell_the_tightest_limit_of_each_kind() -> None:
    """The one that leaves least, and of those the lowest; places have no headers."""
    rates = (
        (RateClaim("acme/key_1/requests", "requests", 10), 7, 0.25),
        (RateClaim("acme/org/requests", "requests", 100), 3, 61.4),
        (RateClaim("acme/key_1/tokens", "tokens", 900), 40, 12.0),
        (RateClaim("acme/org/tokens", "tokens", 500), 40, 59.0),
        (RateClaim("acme/org/concurrent", "concurrent", 2), 0, 0.0),
    )
    assert dict(rate_headers(rates)) == {
        b"x-ratelimit-limit-requests": b"100",
        b"x-ratelimit-remaining-requests": b"3",
        b"x-ratelimit-reset-requests": b"1m1s",
        b"x-ratelimit-limit-tokens": b"500",
        b"x-ratelimit-remaining-tokens": b"40",
        b"x-ratelimit-reset-tokens": b"59s",
    }
    assert rate_headers(rates[4:]) == []
