"""Distributed mode: no secret and no text of anybody is anywhere but where it belongs."""

from infra.adapters.clickhouse import server_client
from tests.canaries import tables
from tests.canaries.backend import parrot
from tests.canaries.flow import Flow, leaks, reads
from tests.canaries.planted import Canaries
from tests.distributed.house import House, unique


async def test_no_canary_gets_out(house: House) -> None:
    """Keys, a credential, Idempotency-Keys, headers, prompts and answers: in no log of any process, no topic, no table, not in
    Redis, in no error of ours, no answer of the read side and no metric, after everything was done and everything went wrong."""
    canaries, environ = Canaries(), house.environ
    house.others.append(house.make("worker"))
    await house.begin()
    (gateway,) = house.gateways
    async with parrot(canaries.plant("an answer")) as backend:
        listen = gateway.url.removeprefix("http://")
        flow = Flow(house, gateway.http, listen, backend, canaries, house.known)
        await flow.run(unique("org"))
        await reads(flow, house.http)
        for process in (gateway, *house.others, *house.controls):
            flow.told.append((f"metrics of {process.url}", (await process.http.call("GET", "/metrics")).body))
        analytics = server_client(environ["TOLLHOUSE_CLICKHOUSE"])
        places = {
            **{str(process.child.log): process.child.log.read_bytes() for process in house.processes},
            **tables.kafka(environ["TOLLHOUSE_KAFKA"]),
            **tables.postgres(environ["TOLLHOUSE_POSTGRES"]),
            **tables.redis(environ["TOLLHOUSE_REDIS"]),
            "ClickHouse": tables.clickhouse(analytics),
        }
        analytics.close()
        assert leaks(flow, places) == []
        assert flow.went_on() == []
