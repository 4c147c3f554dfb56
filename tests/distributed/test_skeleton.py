"""The walking skeleton: one request through real processes on real servers."""

from tests.distributed.house import House, unique


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
