"""The condition of `projections.reads.usage.Filter` on the table of requests: SQL with named parameters, and their values."""

from datetime import datetime
from typing import Any

from projections.reads.usage import Filter

_KINDS = {
    "completions": "endpoint NOT LIKE 'embedding%'",
    "embeddings": "endpoint LIKE 'embedding%'",
}


def condition(wanted: Filter) -> tuple[str, dict[str, Any]]:
    """The condition, and the parameters it names."""
    parts, params = ["org = {org:String}"], dict[str, Any](org=wanted.org)
    if wanted.since is not None:
        parts.append("time >= fromUnixTimestamp64Micro({since:Int64})")
        params["since"] = micros(wanted.since)
    if wanted.until is not None:
        parts.append("time < fromUnixTimestamp64Micro({until:Int64})")
        params["until"] = micros(wanted.until)
    for name, values in wanted.only:
        parts.append(f"{name} IN {{{name}:Array(String)}}")
        params[name] = list(values)
    if wanted.code is not None:
        parts.append("code = {code:String}")
        params["code"] = wanted.code
    if wanted.kind != "any":
        parts.append(_KINDS[wanted.kind])
    return " AND ".join(parts), params


def micros(moment: datetime) -> int:
    """Microseconds since 1970, exact."""
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000 + moment.microsecond
