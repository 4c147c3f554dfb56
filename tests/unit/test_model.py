"""Models: published, rerouted, withdrawn, published again."""

import pytest
from msgspec.structs import replace

from domain import model
from domain.model import (
    ModelBoundExceeded,
    ModelPublished,
    ModelRouteChanged,
    ModelWithdrawn,
    PublishModel,
    ReportExceededBound,
    Route,
    WithdrawModel,
)
from tests.unit.decider import given

ROUTES = (Route(backend="fake", upstream_model="m"),)
PUBLISH = PublishModel(routes=ROUTES, max_output_tokens=100, context_tokens=1000)
PUBLISHED = ModelPublished(routes=ROUTES, max_output_tokens=100, context_tokens=1000, tokenizer=None)


def test_a_model_is_published_and_rerouted() -> None:
    """Only the routes changed: the event is about the routes, and says which were before."""
    made = given(model).when(PUBLISH).then(PUBLISHED)
    made.when(PUBLISH).then_nothing_happened()
    routes = (*ROUTES, Route(backend="other", upstream_model="m", tier=1))
    rerouted = made.when(replace(PUBLISH, routes=routes)).then(ModelRouteChanged(routes=routes, before=ROUTES))
    assert rerouted.state.routes == routes
    rerouted.when(replace(PUBLISH, max_output_tokens=50)).then(replace(PUBLISHED, max_output_tokens=50))


def test_how_a_tier_shares_its_load_is_a_term() -> None:
    """Stating that it is by weight is stating nothing."""
    balanced = replace(PUBLISH, balance="least_loaded")
    made = given(model, PUBLISHED).when(balanced).then(replace(PUBLISHED, balance="least_loaded"))
    assert (made.state.balance, given(model, PUBLISHED).state.balance) == ("least_loaded", "weighted")
    made.when(balanced).then_nothing_happened()
    made.when(PUBLISH).then(PUBLISHED)


def test_withdrawn_it_can_be_published_again() -> None:
    """Withdrawing again changes nothing; what never was is not found."""
    gone = given(model, PUBLISHED).when(WithdrawModel()).then(ModelWithdrawn(reason=None))
    assert gone.state.removed
    gone.when(WithdrawModel()).then_nothing_happened()
    assert not gone.when(PUBLISH).then(PUBLISHED).state.removed
    given(model).when(WithdrawModel()).then_refused("not_found")


def test_an_exceeded_bound_stays_until_the_model_is_published_again() -> None:
    """Reported once, however often it happens; publishing the same terms means that somebody has looked."""
    report = ReportExceededBound(request="req_1", cost=2, hold=1)
    exceeded = given(model, PUBLISHED).when(report).then(ModelBoundExceeded(request="req_1", cost=2, hold=1))
    assert exceeded.state.bound_exceeded
    exceeded.when(report).then_nothing_happened()
    assert not exceeded.when(PUBLISH).then(PUBLISHED).state.bound_exceeded
    given(model).when(report).then_nothing_happened()


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (replace(PUBLISH, routes=()), "routes"),
        (replace(PUBLISH, routes=(Route(backend="b", upstream_model=""),)), "routes.0.upstream_model"),
        (replace(PUBLISH, routes=(*ROUTES, Route(backend="b", upstream_model="m", weight=-1))), "routes.1.weight"),
        (replace(PUBLISH, max_output_tokens=0), "max_output_tokens"),
        (replace(PUBLISH, context_tokens=0), "context_tokens"),
    ],
)
def test_bad_terms_name_the_field(command: PublishModel, field: str) -> None:
    """`invalid_field`."""
    given(model).when(command).then_refused("invalid_field", field)
