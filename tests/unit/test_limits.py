"""Limits are set, changed and removed on organizations, projects, users and models, each with an event of its own."""

from types import ModuleType
from typing import Any

import pytest
from msgspec import UNSET, Struct

from domain import model, organization, project, user
from domain.limits import MOST_MODELS, UNLIMITED, Limits, OrganizationLimits
from domain.model import ModelPublished, PublishModel, Route
from domain.organization import (
    ChangeOrganization,
    CreateOrganization,
    OrganizationCreated,
    OrganizationLimitsChanged,
)
from domain.project import ChangeProject, CreateProject, ProjectCreated, ProjectLimitsChanged
from domain.user import ChangeUser, InviteUser, UserInvited, UserLimitsChanged
from tests.unit.decider import given

FIVE = Limits(requests_per_minute=5)
ORG = OrganizationLimits(requests_per_minute=5, models={"m": Limits(concurrent=1)})

Case = tuple[ModuleType, Struct, Any, Any, Any, Limits, Limits]

SCOPES: dict[str, Case] = {
    "org": (
        organization,
        OrganizationCreated(name="A", timezone="UTC", budget_status=402),
        CreateOrganization,
        ChangeOrganization,
        OrganizationLimitsChanged,
        ORG,
        OrganizationLimits(),
    ),
    "project": (
        project,
        ProjectCreated(name="A"),
        CreateProject,
        ChangeProject,
        ProjectLimitsChanged,
        FIVE,
        UNLIMITED,
    ),
    "user": (
        user,
        UserInvited(email="a@b.example", role="member"),
        InviteUser,
        ChangeUser,
        UserLimitsChanged,
        FIVE,
        UNLIMITED,
    ),
}
FIRST = {"org": {"name": "A"}, "project": {"name": "A"}, "user": {"email": "a@b.example"}}


@pytest.mark.parametrize("scope", SCOPES)
def test_limits_change_and_say_what_was_before(scope: str) -> None:
    """Set at the start or later; the same again changes nothing, and so does a change of something else."""
    module, made, create, change, event, limits, none = SCOPES[scope]
    given(module).when(create(**FIRST[scope], limits=limits)).then(made, event(limits=limits, before=none))
    changed = given(module, made).when(change(limits=limits)).then(event(limits=limits, before=none))
    changed.when(change(limits=limits)).then_nothing_happened()
    changed.when(change()).then_nothing_happened()
    changed.when(change(limits=none)).then(event(limits=none, before=limits))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "concurrent"])
def test_a_limit_is_at_least_one(scope: str, name: str) -> None:
    """None is no limit; zero would be a suspension, which has a command of its own."""
    module, made, _, change, _, _, none = SCOPES[scope]
    limits = type(none)(**{name: 0})
    given(module, made).when(change(limits=limits)).then_refused("invalid_field", f"limits.{name}")


@pytest.mark.parametrize(
    ("models", "field"),
    [
        ({"m": Limits(tokens_per_minute=0)}, "limits.models.m.tokens_per_minute"),
        ({"no such name": FIVE}, "limits.models"),
        ({f"m-{number}": FIVE for number in range(MOST_MODELS + 1)}, "limits.models"),
    ],
)
def test_an_organization_limits_models_by_name(models: dict[str, Limits], field: str) -> None:
    """The field at fault is named; their number is bounded."""
    module, made, _, change, *_ = SCOPES["org"]
    given(module, made).when(change(limits=OrganizationLimits(models=models))).then_refused("invalid_field", field)


def test_a_models_limits_are_among_its_terms() -> None:
    """Published with it, and gone when it is published without; what it published before it had any is the same model."""
    routes = (Route(backend="b", upstream_model="u"),)
    terms: dict[str, Any] = {"routes": routes, "max_output_tokens": 1, "context_tokens": 2}
    without = ModelPublished(**terms, tokenizer=None)
    limited = ModelPublished(**terms, tokenizer=None, limits=FIVE)
    assert without.limits is UNSET
    given(model, without).when(PublishModel(**terms)).then_nothing_happened()
    published = given(model, without).when(PublishModel(**terms, limits=FIVE)).then(limited)
    published.when(PublishModel(**terms)).then(without)
    bad = PublishModel(**terms, limits=Limits(concurrent=0))
    given(model).when(bad).then_refused("invalid_field", "limits.concurrent")
