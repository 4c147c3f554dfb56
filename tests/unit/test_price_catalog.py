"""Published prices become prices here only if they can be charged exactly, each with where and when it held."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from domain.errors import Invalid, NotFound
from infra.adapters.price_catalog import find_price
from tests.fake_api import FakeApi
from tests.unit.conftest import Cli

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def test_a_known_model_has_its_rates_and_their_source() -> None:
    """Decimal strings per million tokens, the package's version and a date that is not after today."""
    price = find_price("gpt-4o-mini", None, NOW)
    assert (price.input_usd, price.output_usd, price.cached_input_usd) == ("0.15", "0.6", "0.075")
    assert price.source.startswith("genai-prices ")
    assert price.source.endswith("(openai/gpt-4o-mini)")
    assert date(2024, 1, 1) < price.source_date <= NOW.date()


def test_sound_and_pictures_have_the_rates_that_are_published() -> None:
    """None where they have none of their own."""
    spoken, text = find_price("gpt-audio", None, NOW), find_price("gpt-4o-mini", None, NOW)
    assert (spoken.audio_input_usd, spoken.audio_output_usd, spoken.image_input_usd) == ("32", "64", None)
    assert (text.audio_input_usd, text.image_input_usd, text.audio_output_usd) == (None, None, None)


def test_a_class_of_tokens_that_is_none_here_is_not_charged_as_another() -> None:
    """Whoever prices a model that draws must decide what a picture costs."""
    with pytest.raises(Invalid, match="output_image_mtok"):
        find_price("gemini-2.5-flash-image", None, NOW)


def test_a_dated_price_changes_with_the_date() -> None:
    """claude-opus-4-6 had rates that depended on the size of a request until 13 March 2026, and has not since."""
    assert find_price("claude-opus-4-6", "https://api.anthropic.com", NOW).input_usd == "5"
    with pytest.raises(Invalid, match="depend on the size"):
        find_price("claude-opus-4-6", "https://api.anthropic.com", datetime(2026, 3, 1, tzinfo=UTC))


def test_a_price_that_depends_on_the_hour_is_refused_at_any_hour() -> None:
    """One price for the whole day would be wrong for a part of it."""
    for hour in (0, 12, 18):
        with pytest.raises(Invalid, match="time of day"):
            find_price("deepseek-chat", "https://api.deepseek.com", NOW.replace(hour=hour))


def test_a_backend_of_ones_own_is_priced_by_the_models_name() -> None:
    """An address that is no provider's does not hide the model."""
    assert find_price("gpt-4o-mini", "http://127.0.0.1:1/v1", NOW).provider == "openai"


def test_an_unknown_model_is_not_found() -> None:
    """Nothing is guessed."""
    with pytest.raises(NotFound):
        find_price("no-such-model-at-all", None, NOW)


@pytest.fixture
def published(api: FakeApi) -> FakeApi:
    """Two models, one of which the catalogue knows by its upstream name."""
    routes = [{"backend": "b", "upstream_model": "gpt-4o-mini", "tier": 0}]
    own = [{"backend": "b", "upstream_model": "our-own-finetune", "tier": 0}]
    api.on(
        "GET", "/admin/v1/backends", {"data": [{"id": "b", "url": "https://api.openai.com/v1"}], "next_cursor": None}
    )
    models = [{"id": "small", "routes": routes}, {"id": "ours", "routes": own}]
    api.on("GET", "/admin/v1/models", {"data": models, "next_cursor": None})
    for model in ("small", "ours"):
        api.on("PUT", f"/admin/v1/prices/{model}", {"id": model})
    return api


def test_seeding_prices_every_published_model_it_knows(published: FakeApi, cli: Cli) -> None:
    """By a command each, with the source; the unknown one is reported, not guessed, and is no failure."""
    ran = cli("price", "seed", "-o", "json")
    assert ran.code == 0
    rows = {row["model"]: row for row in json.loads(ran.out)["data"]}
    assert rows["small"]["result"] == "listed"
    assert "no model our-own-finetune" in rows["ours"]["result"]
    (command,) = [asked for asked in published.asked if asked.method == "PUT"]
    assert command.path == "/admin/v1/prices/small"
    assert Decimal(command.body["input_usd"]) == Decimal("0.15")
    assert set(command.body) >= {"input_usd", "output_usd", "source", "source_date"}


def test_a_named_model_that_is_unknown_is_exit_3(published: FakeApi, cli: Cli) -> None:
    """The others named are priced nevertheless."""
    assert cli("price", "seed", "--model", "ours", "--model", "small").code == 3
    assert [asked.path for asked in published.asked if asked.method == "PUT"] == ["/admin/v1/prices/small"]


def test_a_name_in_the_catalogue_can_be_given(published: FakeApi, cli: Cli) -> None:
    """MODEL=PUBLISHED_NAME prices our own model as that one."""
    assert cli("price", "seed", "--model", "ours=gpt-4o-mini").code == 0
    assert published.asked[-1].body["input_usd"] == "0.15"


def test_a_dry_run_lists_nothing(published: FakeApi, cli: Cli) -> None:
    """The server is told that it is one."""
    cli("price", "seed", "--dry-run", "--model", "small")
    assert published.asked[-1].query == {"dry_run": "true"}
