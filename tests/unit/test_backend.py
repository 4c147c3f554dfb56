"""Backends: registered, changed, drained, killed, restored."""

from typing import Any

import pytest
from msgspec.structs import replace

from domain import backend
from domain.backend import (
    Backend,
    BackendChanged,
    BackendDrained,
    BackendKilled,
    BackendRegistered,
    BackendRestored,
    Connection,
    DrainBackend,
    KillBackend,
    PutBackend,
    RestoreBackend,
    Terms,
)
from tests.unit.decider import given

HERE = Connection(url="https://api.example.com/v1", protocol="openai")
REGISTERED = BackendRegistered(connection=HERE)


def test_a_backend_is_registered_and_changed() -> None:
    """A change says what was before; the same again changes nothing."""
    made = given(backend).when(PutBackend(connection=HERE)).then(REGISTERED)
    made.when(PutBackend(connection=HERE)).then_nothing_happened()
    there = Connection(url="https://eu.example.com/v1", protocol="openai", weight=2)
    made.when(PutBackend(connection=there)).then(BackendChanged(connection=there, before=HERE))


def test_a_trailing_slash_is_the_same_address() -> None:
    """The stored base URL has none."""
    slashed = Connection(url="https://api.example.com/v1/", protocol="openai")
    given(backend, REGISTERED).when(PutBackend(connection=slashed)).then_nothing_happened()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com/v1",
        "ftp://example.com",
        "file:///etc/passwd",
        "http://",
        "http://user:pass@example.com",
        "http://example.com/?x=1",
        "http://example.com/#x",
        "http://exa mple.com",
        "http://example.com\r\nx",
        "http://example.com:port",
        "http://[::1",
    ],
)
def test_a_url_is_a_base_url(url: str) -> None:
    """Anything that could smuggle something else along is refused naming `url`."""
    command = PutBackend(connection=Connection(url=url, protocol="openai"))
    given(backend).when(command).then_refused("invalid_field", "url")


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), 1e9])
def test_a_timeout_has_bounds(timeout: float) -> None:
    """`invalid_field` naming `timeout_seconds`."""
    connection = Connection(url="http://h", protocol="openai", timeout_seconds=timeout)
    given(backend).when(PutBackend(connection=connection)).then_refused("invalid_field", "timeout_seconds")


def test_terms_are_kept_where_they_are_not_the_usual_ones() -> None:
    """Stating the usual ones is stating none; changing them back says so."""
    terms = Terms(max_concurrent=3, health_path="/models")
    put = PutBackend(connection=replace(HERE, terms=terms))
    made = given(backend, REGISTERED).when(put).then(BackendChanged(connection=put.connection, before=HERE))
    assert (made.state.terms, given(backend, REGISTERED).state.terms) == (terms, Terms())
    made.when(put).then_nothing_happened()
    usual = PutBackend(connection=replace(HERE, terms=Terms()))
    given(backend, REGISTERED).when(usual).then_nothing_happened()
    made.when(usual).then(BackendChanged(connection=HERE, before=put.connection))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            (name, value)
            for name in ("first_byte_seconds", "idle_seconds", "health_seconds")
            for value in (0.0, -1.0, 1e9)
        ),
        ("first_byte_seconds", float("nan")),
        ("max_concurrent", 0),
        ("requests_per_minute", 0),
        *(("health_path", path) for path in ("models", "", "/mo dels", "/x\r\ny", "/" + "x" * 200)),
    ],
)
def test_terms_have_bounds(field: str, value: Any) -> None:
    """`invalid_field` naming the field."""
    connection = replace(HERE, terms=Terms(**{field: value}))
    given(backend).when(PutBackend(connection=connection)).then_refused("invalid_field", field)


def test_drained_killed_and_restored_once_each() -> None:
    """Repeating changes nothing, and changing how it is reached restores nothing; what never was is not found."""
    steps = (
        (DrainBackend(), BackendDrained(reason=None), "drained"),
        (KillBackend(reason="r"), BackendKilled(reason="r"), "killed"),
        (RestoreBackend(), BackendRestored(reason=None), "active"),
    )
    current = given(backend, REGISTERED)
    for command, event, state in steps:
        given(backend).when(command).then_refused("not_found")
        current = current.when(command).then(event)
        current.when(command).then_nothing_happened()
        after: Backend = current.state
        assert after.state == state
        moved = backend.evolve(after, BackendChanged(connection=HERE, before=HERE))
        assert moved == after
