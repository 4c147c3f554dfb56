"""What ``tollhouse doctor`` looks at where the servers of distributed mode are named."""

import logging
from collections.abc import Callable, Iterator

from cli.finding import Finding
from cli.settings import Settings
from domain.errors import Invalid, TollhouseError, Unavailable
from infra.adapters.clickhouse import IN_PROCESS, check_named
from infra.adapters.kafka_topics import COPIES, TOPICS, check_topics
from infra.adapters.server_facts import ServerFacts, clickhouse_facts, kafka_facts, postgres_facts, redis_facts

NAMES = ("kafka", "postgres", "redis", "clickhouse")
"""The settings that name a server."""

LEAST = {"kafka": (3, 7), "postgres": (14, 0), "redis": (6, 2), "clickhouse": (25, 3)}

CLOCK_SECONDS = 1.0
"""How far clocks may be apart before it is worth a look: a gate admits up to 60 s."""


def examine_servers(settings: Settings) -> Iterator[Finding]:
    """One of `NAMES` at least is set."""
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())  # what it warns of is a finding
    for name in (*NAMES, "secret"):
        if getattr(settings, name) is None:
            yield Finding(
                name, False, "not set", f"set TOLLHOUSE_{name.upper()}, the same for every process that needs it"
            )
    if settings.kafka is not None:
        yield from _kafka(settings.kafka)
    if settings.postgres is not None:
        yield from _server("postgres", postgres_facts, settings.postgres, _durable)
    if settings.redis is not None:
        yield from _server("redis", redis_facts, settings.redis, _keeping)
    if settings.clickhouse is not None:
        yield from _clickhouse(settings.clickhouse)


def _kafka(servers: str) -> Iterator[Finding]:
    try:
        facts, brokers = kafka_facts(servers)
    except Unavailable as error:
        yield Finding("kafka", False, error.message, "start it, or set another TOLLHOUSE_KAFKA")
        return
    yield _version("kafka", facts, f"{brokers} broker{'s' if brokers > 1 else ''}")
    try:
        wrong = check_topics(servers)
    except TollhouseError as error:
        wrong = [error.message]
    for line in wrong:
        missing = "does not exist" in line
        fix = "tollhouse bootstrap" if missing else "change the topic's setting with Kafka's own kafka-configs"
        yield Finding("topics", False, line, fix)
    if not wrong:
        kept = "kept for ever, acknowledged by a majority of their copies"
        yield Finding("topics", True, ", ".join(f"{t.name} ({t.partitions})" for t in TOPICS) + f": {kept}")
    if brokers < COPIES:
        yield Finding("copies", True, f"a record is on {brokers} of them: in production {COPIES} brokers lose nothing")


def _clickhouse(named: str) -> Iterator[Finding]:
    try:
        check_named(named)
    except Invalid as error:
        yield Finding("clickhouse", False, error.message, "set it to http(s)://user:password@host:port/database")
        return
    if named.startswith(IN_PROCESS):
        told = "the engine in process serves one process; name a server for `worker` and `read`"
        yield Finding("clickhouse", False, named, told)
        return
    yield from _server("clickhouse", clickhouse_facts, named, lambda _: ())


def _server(
    name: str,
    ask: Callable[[str], ServerFacts],
    url: str,
    judge: Callable[[ServerFacts], Iterator[Finding] | tuple[()]],
) -> Iterator[Finding]:
    try:
        facts = ask(url)
    except Unavailable as error:
        yield Finding(name, False, error.message, f"start it, or set another TOLLHOUSE_{name.upper()}")
        return
    yield _version(name, facts)
    if facts.ahead is not None:
        right = abs(facts.ahead) <= CLOCK_SECONDS
        seen = f"{name} is {abs(facts.ahead) * 1000:.0f} ms {'ahead' if facts.ahead > 0 else 'behind'}"
        yield Finding("clock", right, seen, "let a time service (chrony) keep both machines")
    if facts.timezone is not None:
        utc = facts.timezone.removeprefix("Etc/") in ("UTC", "UCT", "GMT")
        yield Finding("time zone", utc, f"{name} has {facts.timezone}", f"set the time zone of {name} to UTC")
    yield from judge(facts)


def _version(name: str, facts: ServerFacts, more: str = "") -> Finding:
    """Unknown parts of a version count as zero."""
    version = (*facts.version, 0, 0)[:2]
    seen = ".".join(map(str, facts.version)) + (f", {more}" if more else "")
    return Finding(name, version >= LEAST[name], seen, f"use {'.'.join(map(str, LEAST[name]))} or later")


def _durable(facts: ServerFacts) -> Iterator[Finding]:
    lost = [name for name, value in facts.settings.items() if value == "off"]
    seen = ", ".join(f"{name} is {value}" for name, value in facts.settings.items())
    yield Finding("durability", not lost, seen, f"set {' and '.join(lost)} to on: a power cut would lose commands")


def _keeping(facts: ServerFacts) -> Iterator[Finding]:
    policy = facts.settings["maxmemory-policy"]
    fix = "CONFIG SET maxmemory-policy noeviction: an evicted balance is a budget that starts anew"
    yield Finding("eviction", policy == "noeviction", f"maxmemory-policy is {policy}", fix)
