"""The keyring: who may do what now, and how current that is."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import Struct

from domain import backend, model, organization, project, service_key, user
from domain.budget import BudgetRemoved, BudgetSet, Scope
from domain.gate_epoch import GateFenced
from domain.ids import partition_of
from domain.limits import UNLIMITED, Limits, OrganizationLimits
from domain.period import Period
from domain.price_list import PriceEntry, PriceList, PriceListed, Rates, timeline
from projections.keyring import FRESH, LATELY, Keyring
from projections.ports import CONTROL, Record
from tests.controlgen import ControlTraffic
from tests.factgen import MemoryLog

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PRICE = PriceEntry(
    number=1, effective_from=NOW, rates=Rates(input=1, output=2, cached_input=1, cache_write=1, reasoning=2)
)
RIGHTS = service_key.KeyRights(models=("m",))


class Told:
    """A keyring that hears of control events as they happen."""

    def __init__(self) -> None:
        self.keyring, self.traffic = Keyring(), ControlTraffic()

    def of(self, stream: str, *events: Struct) -> None:
        for event in events:
            self.traffic.emit(stream, event)
        self.keyring.apply(self.traffic.log.read(0, self.keyring.offset, 1000))


@pytest.fixture
def told() -> Told:
    """Acme with project web, user ada, and two keys: k1 with the hash h1, and ada's k2 with h2."""
    made = Told()
    made.of("acme/org/acme", organization.OrganizationCreated(name="Acme", timezone="UTC", budget_status=429))
    made.of("acme/project/web", project.ProjectCreated(name="Web"))
    made.of("acme/user/ada", user.UserInvited(email="ada@example.org", role="member"))
    made.of("acme/key/k1", issued("h1", rights=RIGHTS))
    made.of("acme/key/k2", issued("h2", user="ada"))
    return made


def issued(hash: str, **fields: Any) -> service_key.ApiKeyIssued:
    terms = {"user": None, "rights": service_key.KeyRights(), "expires_at": None, **fields}
    return service_key.ApiKeyIssued(name="app", project="web", hash=hash, redacted="…", **terms)


def budget_of(scope: Scope, **fields: Any) -> BudgetSet:
    terms = {
        "limit": 10,
        "limit_version": 1,
        "period": Period(kind="lifetime"),
        "mode": "hard",
        "models": None,
        "thresholds": (),
        "life": 1,
        "created_at": NOW,
    }
    return BudgetSet(scope=scope, **{**terms, **fields})


# -- the chain


def test_a_record_that_does_not_continue_the_chain_changes_nothing() -> None:
    """One that came twice, and one that runs ahead, are read past."""
    log = MemoryLog(CONTROL)
    traffic = ControlTraffic()
    bodies = [traffic.body("_/gate/0", GateFenced(partition=0, epoch=epoch)) for epoch in range(3)]
    for body, position, previous in (
        (bodies[0], 3, 0),
        (bodies[0], 3, 0),
        (bodies[2], 9, 8),
        (bodies[1], 5, 3),
    ):
        log.append(0, body, position, previous)
    keyring = Keyring()
    keyring.apply(log.all())
    assert (keyring.position, keyring.offset, keyring.version, keyring.epoch(0)) == (5, 4, 2, 1)
    assert keyring.version_of("gate", "_", "0") == (2, 3)


def test_strays_of_a_deposed_leader_leave_no_trace() -> None:
    """A topic with strays folds to what it folds to without them, in batches of any size."""
    traffic = ControlTraffic(seed=3).run(150)
    clean, position = list[Record](), 0
    for record in traffic.log.all():
        if record.previous == position:
            clean.append(record)
            position = record.position
    assert len(clean) < len(traffic.log.all())
    expected = folded(clean, 1000)
    for size in (1, 7, 1000):
        assert folded(traffic.log.all(), size) == expected


def folded(records: Sequence[Record], size: int) -> dict[Any, Any]:
    keyring = Keyring()
    for start in range(0, len(records), size):
        keyring.apply(records[start : start + size])
    return {name: (keyring.state(*name), keyring.version_of(*name)) for name in keyring.names()}


# -- freshness


def test_a_view_is_fresh_for_a_while_after_it_was_proved() -> None:
    """Never before the first proof, and a proof of the past does not make it older."""
    keyring = Keyring()
    assert not keyring.fresh(100.0)
    keyring.proved(100.0)
    keyring.proved(90.0)
    assert keyring.fresh(100.0 + FRESH / 2)
    assert not keyring.fresh(100.0 + FRESH * 1.01)
    assert keyring.age(101.0) == 1.0


def test_an_aged_view_is_proved_when_it_is_asked() -> None:
    """A process that stood still need not refuse, if looking costs little."""
    keyring = Keyring()
    keyring.proved(100.0)
    keyring.prove = lambda: keyring.proved(200.0)
    assert keyring.fresh(200.0)


async def test_a_view_that_is_proved_again_in_a_moment_is_waited_for() -> None:
    """Whoever comes while it is a little too old is served by the next proof, and not before it."""
    keyring = Keyring()
    keyring.proved(time.monotonic() - FRESH - 0.01)
    waiting = asyncio.ensure_future(keyring.renewed())
    keyring.proved(time.monotonic() - FRESH - 0.005)  # still too old
    await asyncio.sleep(0)
    assert not waiting.done()
    keyring.proved(time.monotonic())
    assert await waiting


async def test_a_view_that_has_been_old_for_longer_is_not_waited_for() -> None:
    """A gateway that is cut off refuses at once."""
    keyring = Keyring()
    assert not await keyring.renewed()
    keyring.proved(time.monotonic() - FRESH - LATELY - 0.01)
    assert not await keyring.renewed()


async def test_a_view_that_is_not_proved_again_is_given_up() -> None:
    """The wait has an end."""
    keyring = Keyring()
    keyring.proved(time.monotonic() - FRESH - LATELY + 0.02)
    assert not await keyring.renewed()


# -- callers


def test_a_caller_is_found_by_the_hash_of_its_key(told: Told) -> None:
    """With everything that admission needs; strangers are nobody."""
    caller = told.keyring.caller("h1", NOW)
    assert caller is not None
    assert (caller.org, caller.project, caller.user, caller.key) == ("acme", "web", None, "k1")
    assert (caller.partition, caller.models, caller.budget_status) == (partition_of("acme"), frozenset({"m"}), 429)
    assert caller.refusal is None
    assert told.keyring.caller("h3", NOW) is None


def test_a_rotated_key_lives_out_its_grace(told: Told) -> None:
    """The new one at once and for good, the old one until the moment that was set."""
    ends = NOW + timedelta(minutes=5)
    told.of("acme/key/k1", service_key.ApiKeyRotated(hash="new", redacted="…", superseded=(("h1", ends),)))
    assert told.keyring.caller("h1", ends - timedelta(microseconds=1)) is not None
    assert told.keyring.caller("h1", ends) is None
    assert told.keyring.caller("new", ends) is not None
    told.of("acme/key/k1", service_key.ApiKeyRotated(hash="newer", redacted="…", superseded=()))
    assert told.keyring.caller("new", NOW) is None


def test_an_expired_key_is_unknown(told: Told) -> None:
    """From the moment of its expiry; a grace that would last longer does not help."""
    ends = NOW + timedelta(hours=1)
    told.of("acme/key/k3", issued("h3", expires_at=ends))
    later = (("h3", ends + timedelta(hours=1)),)
    told.of("acme/key/k3", service_key.ApiKeyRotated(hash="new", redacted="…", superseded=later))
    for hash in ("h3", "new"):
        assert told.keyring.caller(hash, ends - timedelta(microseconds=1)) is not None
        assert told.keyring.caller(hash, ends) is None


@pytest.mark.parametrize(
    ("stream", "ends"),
    [
        ("acme/key/k1", service_key.ApiKeyRevoked(reason=None)),
        ("acme/project/web", project.ProjectClosed(reason=None)),
        ("acme/org/acme", organization.OrganizationClosed(reason=None)),
    ],
)
def test_revoked_and_closed_is_as_unknown(told: Told, stream: str, ends: Struct) -> None:
    """At once, though the caller was known a moment ago."""
    assert told.keyring.caller("h1", NOW) is not None
    told.of(stream, ends)
    assert told.keyring.caller("h1", NOW) is None


@pytest.mark.parametrize(
    ("stream", "stops", "goes_on", "code"),
    [
        (
            "acme/org/acme",
            organization.OrganizationSuspended(reason=None),
            organization.OrganizationReinstated(reason=None),
            "organization_suspended",
        ),
        (
            "acme/project/web",
            project.ProjectSuspended(reason=None),
            project.ProjectReinstated(reason=None),
            "project_suspended",
        ),
        ("acme/user/ada", user.UserSuspended(reason=None), user.UserReinstated(reason=None), "user_suspended"),
    ],
)
def test_the_suspended_are_known_but_refused(
    told: Told, stream: str, stops: Struct, goes_on: Struct, code: str
) -> None:
    """With a code of their own, until they are reinstated."""
    for event, refusal in ((stops, code), (goes_on, None)):
        told.of(stream, event)
        caller = told.keyring.caller("h2", NOW)
        assert caller is not None
        assert caller.refusal == refusal


def test_the_key_of_a_removed_user_is_refused(told: Told) -> None:
    """Keys that are nobody's in the same project go on."""
    told.of("acme/user/ada", user.UserRemoved(reason=None))
    refusals = [found.refusal for hash in ("h1", "h2") if (found := told.keyring.caller(hash, NOW))]
    assert refusals == [None, "user_suspended"]


# -- budgets


def test_the_budgets_on_the_path_of_a_key_are_in_scope(told: Told) -> None:
    """Those of its organization, project, user and of itself; no other's, and none that was removed."""
    for name, scope in {
        "a-org": Scope(kind="org"),
        "b-web": Scope(kind="project", id="web"),
        "c-ada": Scope(kind="user", id="ada"),
        "d-k1": Scope(kind="key", id="k1"),
        "e-k2": Scope(kind="key", id="k2"),
        "f-shop": Scope(kind="project", id="shop"),
        "g-bob": Scope(kind="user", id="bob"),
        "h-gone": Scope(kind="org"),
    }.items():
        told.of(f"acme/budget/{name}", budget_of(scope))
    told.of("acme/budget/h-gone", BudgetRemoved(reason=None))
    told.of("globex/budget/a-org", budget_of(Scope(kind="org")))
    assert scoped(told, "h1") == ["a-org", "b-web", "d-k1"]
    assert scoped(told, "h2") == ["a-org", "b-web", "c-ada", "e-k2"]


def scoped(told: Told, hash: str) -> list[str]:
    caller = told.keyring.caller(hash, NOW)
    assert caller is not None
    return [budget.id for budget in caller.budgets]


def test_the_limits_on_the_path_of_a_key_are_in_scope(told: Told) -> None:
    """The narrowest first, and only where there are any; those of models beside them."""
    assert told.keyring.caller("h2", NOW).limits == ()  # type: ignore[union-attr]
    one, two, three = (Limits(concurrent=number) for number in (1, 2, 3))
    of_org = OrganizationLimits(requests_per_minute=5, models={"m": one})
    told.of("acme/user/ada", user.UserLimitsChanged(limits=one, before=UNLIMITED))
    told.of("acme/project/web", project.ProjectLimitsChanged(limits=two, before=UNLIMITED))
    told.of("acme/org/acme", organization.OrganizationLimitsChanged(limits=of_org, before=organization.UNLIMITED))
    rights = service_key.KeyRights(limits=three)
    told.of("acme/key/k2", service_key.ApiKeyLimitsChanged(rights=rights, before=service_key.KeyRights()))
    caller = told.keyring.caller("h2", NOW)
    assert caller is not None
    assert [(each.scope.kind, each.scope.id, each.limits) for each in caller.limits] == [
        ("key", "k2", three),
        ("user", "ada", one),
        ("project", "web", two),
        ("org", None, of_org),
    ]
    assert caller.model_limits == {"m": one}
    other = told.keyring.caller("h1", NOW)
    assert other is not None
    assert [each.scope.kind for each in other.limits] == ["project", "org"]


def test_a_new_limit_is_in_force_at_once(told: Told) -> None:
    """What was resolved before the event is not answered after it."""
    told.of("acme/budget/cap", budget_of(Scope(kind="org")))
    assert scoped(told, "h1") == ["cap"]
    told.of("acme/budget/cap", budget_of(Scope(kind="org"), limit=20, limit_version=2, mode="soft", models=("m",)))
    caller = told.keyring.caller("h1", NOW)
    assert caller is not None
    (cap,) = caller.budgets
    assert (cap.limit, cap.version, cap.hard, cap.models) == (20, 2, False, frozenset({"m"}))


# -- models


@pytest.fixture
def routed(told: Told) -> Told:
    """Model m, first on backend one, and in the next tier on backend two."""
    for name in ("one", "two"):
        connection = backend.Connection(url=f"http://{name}/v1", protocol="openai")
        told.of(f"_/backend/{name}", backend.BackendRegistered(connection=connection))
    routes = (
        model.Route(backend="two", upstream_model="m2", tier=1),
        model.Route(backend="one", upstream_model="m1"),
        model.Route(backend="gone", upstream_model="m3"),
    )
    published = model.ModelPublished(routes=routes, max_output_tokens=50, context_tokens=1000, tokenizer=None)
    told.of("_/model/m", published)
    return told


def targets(told: Told) -> list[tuple[str, str]]:
    found = told.keyring.model("m")
    assert found is not None
    return [(target.backend, target.upstream_model) for target in found.targets]


def test_targets_are_the_usable_routes_by_tier(routed: Told) -> None:
    """A route to a backend that nobody registered is none."""
    assert targets(routed) == [("one", "m1"), ("two", "m2")]


@pytest.mark.parametrize("stop", [backend.BackendKilled(reason=None), backend.BackendDrained(reason=None)])
def test_a_backend_out_of_service_is_no_target(routed: Told, stop: Struct) -> None:
    """Killed or drained it leaves at once; restored it is back."""
    assert len(targets(routed)) == 2
    routed.of("_/backend/one", stop)
    assert targets(routed) == [("two", "m2")]
    routed.of("_/backend/one", backend.BackendRestored(reason=None))
    assert targets(routed) == [("one", "m1"), ("two", "m2")]


def test_a_withdrawn_model_is_gone(routed: Told) -> None:
    """From the list too."""
    assert [found.id for found in routed.keyring.models()] == ["m"]
    routed.of("_/model/m", model.ModelWithdrawn(reason=None))
    assert routed.keyring.model("m") is None
    assert routed.keyring.models() == []


def test_a_model_knows_its_prices_and_whether_its_bound_held(routed: Told) -> None:
    """Both come from events of their own."""
    routed.of("_/price/m", PriceListed(model="m", entry=PRICE))
    routed.of("_/model/m", model.ModelBoundExceeded(request="req_1", cost=2, hold=1))
    found = routed.keyring.model("m")
    assert found is not None
    assert found.prices == timeline(PriceList(model="m", history=(PRICE,)))
    assert found.bound_exceeded


def test_before_the_first_fence_there_is_no_epoch() -> None:
    """-1: nothing can be admitted under it."""
    assert Keyring().epoch(0) == -1
