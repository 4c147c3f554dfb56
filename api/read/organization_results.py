"""The results inside OpenAI's buckets: which fields, and where their dimensions come from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from api.read.exports import flat
from domain.errors import invalid
from domain.money import format_usd
from projections.reads.usage import Dimension, Kind, Percentiles, Totals, UsageRow

_USAGE_DIMENSIONS: Mapping[str, Dimension | None] = {
    "project_id": "project",
    "user_id": "user",
    "api_key_id": "key",
    "model": "model",
    "batch": None,
    "service_tier": None,
}
_EMBEDDING_DIMENSIONS = {name: found for name, found in _USAGE_DIMENSIONS.items() if found is not None}
_COST_DIMENSIONS: Mapping[str, Dimension | None] = {"project_id": "project", "line_item": "model", "api_key_id": "key"}


@dataclass(frozen=True, slots=True)
class Shape:
    """One of OpenAI's results. `named`: its dimensions; None for one that nothing here has."""

    name: str
    kind: Kind
    named: Mapping[str, Dimension | None]
    figures: Callable[[Totals], dict[str, Any]]

    def dimensions(self, group_by: Sequence[str]) -> dict[str, Dimension]:
        """What to group by, by OpenAI's names. Raises `Invalid`."""
        for name in group_by:
            if name not in self.named:
                raise invalid("group_by", f"must be of {', '.join(self.named)}; got {name!r:.40}")
        return {name: found for name in group_by if (found := self.named[name]) is not None}

    def result(self, row: UsageRow, dimensions: Mapping[str, Dimension]) -> dict[str, Any]:
        """A row grouped by `dimensions`, in order."""
        groups = dict(zip(dimensions, row.group, strict=True))
        return {**self.figures(row.totals), **{name: groups.get(name) for name in self.named}}

    def columns(self) -> list[str]:
        """Of an export."""
        never = Percentiles(None, None, None)
        empty = UsageRow(start=None, end=None, group=(), totals=Totals(), latency_ms=never, first_token_ms=never)
        return ["start_time", "end_time", *flat(self.result(empty, {}))]


def _completions(totals: Totals) -> dict[str, Any]:
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": totals.all_input,
        "input_cached_tokens": totals.cached_input,
        "input_cache_write_tokens": totals.cache_write,
        "input_uncached_tokens": totals.input + totals.audio_input + totals.image_input,
        "input_text_tokens": totals.input,
        "input_audio_tokens": totals.audio_input,
        "input_image_tokens": totals.image_input,
        "output_tokens": totals.all_output,
        "output_text_tokens": totals.output + totals.reasoning,
        "output_audio_tokens": totals.audio_output,
        "num_model_requests": totals.requests,
    }


def _embeddings(totals: Totals) -> dict[str, Any]:
    return {
        "object": "organization.usage.embeddings.result",
        "input_tokens": totals.all_input,
        "num_model_requests": totals.requests,
    }


def _costs(totals: Totals) -> dict[str, Any]:
    """The amount is a JSON number with all its decimals."""
    return {
        "object": "organization.costs.result",
        "amount": {"value": msgspec.Raw(format_usd(totals.cost).encode()), "currency": "usd"},
        "quantity": None,
        "quantity_unit": None,
    }


COMPLETIONS = Shape("usage-completions", "completions", _USAGE_DIMENSIONS, _completions)
EMBEDDINGS = Shape("usage-embeddings", "embeddings", _EMBEDDING_DIMENSIONS, _embeddings)
COSTS = Shape("costs", "any", _COST_DIMENSIONS, _costs)
