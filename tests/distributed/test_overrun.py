"""A model whose bound was wrong is closed under hard budgets, also if the gateway that saw it dies with the answer."""

from tests.distributed.house import House, unique
from tests.waiting import eventually


async def test_a_model_is_closed_whatever_became_of_the_gateway_that_saw_it(house: House) -> None:
    """A backend reports more than the bound while no worker runs, and the gateway is killed with its answer: the request is on
    the books with its whole cost, and once there is a worker the model is refused by another gateway with 422, until an admin has
    published it anew."""
    fake = await house.fake()
    await house.begin(gateways=2)
    org, model, backend = unique("org"), unique("m"), unique("backend")
    await house.model(model, fake.url, backend=backend)
    key = (await house.org(org))["main"]
    await house.budget(org, "cap", "1000")
    fake.claiming[model] = 90_000
    seen, other = house.gateways
    answer = await house.chat(key, model, http=seen.http, max_tokens=5)
    await seen.child.kill()
    await seen.http.close()
    house.gateways.remove(seen)
    assert answer.status == 200
    facts = await house.facts(org)
    assert (facts[-1].type, facts[-1].data["overrun"]) == ("RequestCompleted", True)
    assert facts[-1].data["cost"] > facts[-1].data["hold"]
    fake.claiming.clear()
    assert (await house.chat(key, model, http=other.http, max_tokens=5)).status == 200
    worker = house.make("worker")
    house.others.append(worker)
    await worker.start()
    refused = await eventually(
        lambda: house.chat(key, model, http=other.http, max_tokens=5), lambda answer: answer.status != 200
    )
    assert (refused.status, refused.code) == (422, "unbounded_cost")
    await house.model(model, fake.url, backend=backend)
    again = await eventually(
        lambda: house.chat(key, model, http=other.http, max_tokens=5), lambda answer: answer.status == 200
    )
    assert again.status == 200
