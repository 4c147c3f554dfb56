"""The walking skeleton: one request through real processes on real servers."""

from tests.distributed.house import House, unique
from tests.waiting import eventually


async def test_a_request_is_served_and_on_the_books(house: House) -> None:
    """Gateway, control and gatekeeper, started at once in no order: a request is answered by the Hello service, and what it
    cost is a fact in Kafka."""
    hello = await house.hello()
    await house.begin()
    org, model = unique("org"), unique("model")
    await house.model(model, hello.url, backend=unique("backend"))
    key = (await house.org(org))["main"]
    await house.budget(org, "cap", "5")
    answer = await house.chat(key, model, max_tokens=20)
    assert answer.status == 200, answer.body
    facts = await house.facts(org)
    assert [fact.type for fact in facts] == ["RequestAdmitted", "RequestCompleted"]
    assert {fact.data["request"] for fact in facts} == {answer.id}
    assert facts[1].data["cost"] > 0
    assert [line["request_id"] for line in hello.served()] == [answer.id]


async def test_a_backend_inside_is_reached_only_where_that_is_allowed(house: House) -> None:
    """A gateway that may not connect to private addresses asks no backend on this machine; nothing is charged."""
    fake = await house.fake()
    house.gateways.append(house.make("gateway", TOLLHOUSE_ALLOW_PRIVATE="false"))
    await house.begin(gateways=0)
    org, model = unique("org"), unique("model")
    await house.model(model, fake.url, backend=unique("backend"))
    key = (await house.org(org))["main"]
    answer = await house.chat(key, model)
    assert (answer.status, answer.code) == (502, "upstream_error"), answer.body
    assert not fake.received
    assert [fact.type for fact in await house.facts(org)] == ["RequestAdmitted", "RequestFailed"]


async def test_what_became_of_a_request_is_asked_where_it_is_known(house: House) -> None:
    """A gateway that was told where reads are answered passes the question on, and the service key may ask it; one that was not
    told says who knows."""
    fake = await house.fake()
    house.others.append(house.make("worker"))
    await house.begin()
    org, model = unique("org"), unique("model")
    await house.model(model, fake.url, backend=unique("backend"))
    key = (await house.org(org))["main"]
    served = await house.chat(key, model)
    assert served.status == 200, served.body
    told = house.make("gateway", TOLLHOUSE_URL=house.controls[0].url)
    house.others.append(told)
    await told.start()
    head = {"authorization": f"Bearer {key.secret}"}
    path = f"/v1/requests/{served.id}"
    found = await eventually(lambda: told.http.call("GET", path, None, head), lambda answer: answer.status == 200)
    assert (found.status, found.json()["outcome"]) == (200, "completed"), found.body
    unknown = await house.gateways[0].http.call("GET", path, None, head)
    assert (unknown.status, unknown.code) == (404, "unknown_url")
    assert b"tollhouse read" in unknown.body
