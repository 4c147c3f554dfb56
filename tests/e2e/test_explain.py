"""P7: every decision explains itself, by its request id: who, which budgets at which balances, which price, which backends,
why."""

import asyncio
import socket
from typing import Any

from tests.exact import cost, nano
from tests.http1 import Answer
from tests.lab import PRICE, Key, Lab
from tests.waiting import eventually, until


async def explained(lab: Lab, key: Key, id: str, outcome: str) -> dict[str, Any]:
    """The decision, as an admin reads it; the service key that sent the request reads the same."""
    told: dict[str, Any] = await eventually(
        lambda: lab.read(f"/requests/{id}"), lambda doc: bool(doc["outcome"] == outcome)
    )
    headers = {"authorization": f"Bearer {key.secret}"}
    own = (await lab.http.call("GET", f"/v1/requests/{id}", None, headers)).json()
    for volatile in ("as_of", "lag_ms"):
        told.pop(volatile)
        own.pop(volatile)
    assert own == told
    assert told["id"] == id
    assert told["outcome"] == outcome
    assert (told["org"], told["project"], told["key"]) == ("acme", "main", key.id)
    return told


def budget(doc: dict[str, Any], name: str) -> tuple[int, int, int]:
    """Limit, consumed and held of a budget as the gate saw it, in nano-dollars."""
    (found,) = [budget for budget in doc["budgets"] if budget["id"] == name]
    return nano(found["limit_usd"]), nano(found["consumed_usd"]), nano(found["held_usd"])


async def served(lab: Lab, key: Key, **fields: Any) -> Answer:
    answer = await lab.chat(key, "m", **fields)
    assert answer.status == 200
    return answer


async def test_a_served_request_tells_who_what_and_at_which_price(lab: Lab) -> None:
    """Key, project, user, both budgets with what was consumed before, the price version, the backend, tokens and cost."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    await lab.org("acme")
    user = await lab.admin("POST", "/orgs/acme/users", {"email": "ann@example.com", "role": "member"})
    await lab.admin("POST", f"/orgs/acme/users/{user['id']}/accept")
    key = await lab.key("acme", "main", user=user["id"])
    await lab.budget("acme", "cap", "5")
    await lab.budget("acme", "team", "2", project="main")
    first = await served(lab, key, max_tokens=7)
    await eventually(lambda: lab.balance("acme", "cap"), lambda balance: not balance.held)
    await lab.admin("PUT", "/prices/m", {"input_usd": "10", "output_usd": "20"})
    second = await served(lab, key, max_tokens=7)
    before, after = [await explained(lab, key, answer.id, "completed") for answer in (first, second)]
    assert before["user"] == after["user"] == user["id"]
    assert before["price"] != after["price"]
    assert nano(before["cost_usd"]) == cost(PRICE, 3, 7) == nano(first.headers["x-tollhouse-cost-usd"])
    assert nano(after["cost_usd"]) == cost({"input_usd": "10", "output_usd": "20"}, 3, 7)
    assert (before["input_tokens"], before["output_tokens"]) == (3, 7)
    assert budget(before, "cap") == (nano("5"), 0, 0)
    assert budget(before, "team") == (nano("2"), 0, 0)
    assert budget(after, "team") == (nano("2"), nano(before["cost_usd"]), 0)
    assert nano(before["hold_usd"]) >= nano(before["cost_usd"])
    assert [(one["backend"], one["status"]) for one in before["tries"]] == [("fake", 200)]
    assert [fact["type"] for fact in before["facts"]] == ["RequestAdmitted", "RequestCompleted"]


async def test_a_denied_request_tells_which_budget_refused_it_at_which_balance(lab: Lab) -> None:
    """402: the budget, its limit and what was consumed; no backend, no cost."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = (await lab.org("acme"))["main"]
    await lab.budget("acme", "wide", "100")
    await lab.budget("acme", "narrow", "0.0005", project="main")
    spent = await served(lab, key, max_tokens=200)
    await eventually(lambda: lab.balance("acme", "wide"), lambda balance: not balance.held)
    refused = await lab.chat(key, "m", max_tokens=10_000)
    assert refused.status == 402
    doc = await explained(lab, key, refused.id, "denied")
    consumed = nano(spent.headers["x-tollhouse-cost-usd"])
    assert (doc["code"], doc["status"], doc["refused_by"]) == ("insufficient_quota", 402, "narrow")
    assert "narrow" in doc["reason"]
    assert budget(doc, "narrow") == (nano("0.0005"), consumed, 0)
    assert budget(doc, "wide") == (nano("100"), consumed, 0)
    assert [found["id"] for found in doc["budgets"] if found["refused"]] == ["narrow"]
    assert (doc["model"], doc["backend"], doc["tries"], nano(doc["cost_usd"])) == ("m", None, [], 0)
    assert [fact["type"] for fact in doc["facts"]] == ["RequestDenied"]


async def test_each_refusal_before_the_gate_is_explained_too(lab: Lab) -> None:
    """An unknown model, one that the key may not use, an unpriced one: denied with their code, by the id that was answered."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    await lab.org("acme")
    key = await lab.key("acme", "main", models=["m"])
    await lab.budget("acme", "cap", "5")
    route = {"backend": "fake", "upstream_model": "x", "weight": 1, "tier": 0}
    await lab.admin("PUT", "/models/free", {"routes": [route], "max_output_tokens": 9, "context_tokens": 99})
    await lab.admin("PATCH", f"/orgs/acme/keys/{key.id}", {"models": ["m", "free", "none"]})
    answers = [await lab.chat(key, model) for model in ("none", "free")]
    await lab.admin("PATCH", f"/orgs/acme/keys/{key.id}", {"models": ["free"]})
    answers.append(await lab.chat(key, "m"))
    assert [answer.code for answer in answers] == ["model_not_found", "model_unpriced", "model_not_allowed"]
    for answer in answers:
        doc = await explained(lab, key, answer.id, "denied")
        assert (doc["code"], doc["status"], nano(doc["cost_usd"])) == (answer.code, answer.status, 0)
        assert doc["reason"]


async def test_a_failed_request_tells_what_each_backend_did(lab: Lab) -> None:
    """A backend that refuses the connection, and one that answers 500: failed, which backend, and what it cost: nothing."""
    fake = await lab.fake()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    await lab.model("m", fake.url)
    await lab.model("gone", nobody, backend="nobody")
    key = (await lab.org("acme"))["main"]
    await lab.budget("acme", "cap", "5")
    fake.refusing["m"] = 500
    unreachable, refused = await lab.chat(key, "gone"), await lab.chat(key, "m")
    assert (unreachable.status, unreachable.code) == (502, "upstream_error")
    assert (refused.status, refused.code) == (502, "upstream_error")
    first = await explained(lab, key, unreachable.id, "failed")
    second = await explained(lab, key, refused.id, "failed")
    assert (first["backend"], first["reason"]) == ("nobody", "upstream_refused")
    assert [(one["backend"], bool(one["error"])) for one in first["tries"]] == [("nobody", True)]
    assert (second["backend"], second["reason"], second["status"]) == ("fake", "upstream_status", 500)
    assert [(one["backend"], one["status"]) for one in second["tries"]] == [("fake", 500)]
    for doc in (first, second):
        assert budget(doc, "cap") == (nano("5"), 0, 0)
        assert nano(doc["cost_usd"]) == 0
        assert nano(doc["hold_usd"]) > 0
    assert (await lab.balance("acme", "cap", second["position"])).consumed == 0


async def test_a_refusal_of_the_backend_passes_through_and_is_not_charged(lab: Lab) -> None:
    """A backend's own 4xx reaches the caller with its body; the books have it as failed."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = (await lab.org("acme"))["main"]
    fake.refusing["m"] = 422
    answer = await lab.chat(key, "m")
    assert (answer.status, answer.json()["error"]["code"]) == (422, "refused")
    doc = await explained(lab, key, answer.id, "failed")
    assert (doc["status"], nano(doc["cost_usd"])) == (422, 0)


async def test_an_answer_cut_half_way_is_unconfirmed_at_its_whole_hold(lab: Lab) -> None:
    """Nobody knows what a torn answer cost: plain and streamed, the hold counts as an estimate, with the reason."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = (await lab.org("acme"))["main"]
    await lab.budget("acme", "cap", "5")
    fake.cutting.add("m")
    plain, streamed = await lab.chat(key, "m", max_tokens=9), await lab.chat(key, "m", max_tokens=9, stream=True)
    assert (plain.status, plain.code) == (502, "upstream_error")
    assert "upstream_error" in streamed.events()[-1]
    assert "[DONE]" not in streamed.events()
    holds = 0
    for answer in (plain, streamed):
        doc = await explained(lab, key, answer.id, "unconfirmed")
        holds += nano(doc["hold_usd"])
        assert (doc["reason"], doc["estimated"], doc["cost_usd"]) == ("upstream_error", True, doc["hold_usd"])
        assert [(one["backend"], one["error"]) for one in doc["tries"]] == [("fake", "upstream_error")]
    balance = await eventually(lambda: lab.balance("acme", "cap"), lambda balance: not balance.held)
    assert balance.consumed == balance.estimated == holds
    told = await lab.admin("POST", f"/orgs/acme/requests/{plain.id}/write-off", {"reason": "agreed with the provider"})
    assert told is not None
    doc = await explained(lab, key, plain.id, "written_off")
    assert (doc["reason"], nano(doc["cost_usd"])) == ("agreed with the provider", 0)


async def test_an_abandoned_stream_is_charged_for_what_was_seen(lab: Lab) -> None:
    """The caller leaves: the backend's stream is closed, what was seen is charged, flagged as estimated and abandoned."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = (await lab.org("acme"))["main"]
    await lab.budget("acme", "cap", "5")
    fake.gates["m"] = asyncio.Event()
    stream = await lab.stream(key, "m", max_tokens=50)
    id = stream.headers["x-request-id"]
    assert (await stream.piece()).startswith(b"data: ")
    stream.leave()
    await until(lambda: fake.left == [id], "the backend's stream was closed")
    doc = await explained(lab, key, id, "completed")
    assert (doc["abandoned"], doc["estimated"], doc["stream"]) == (True, True, True)
    assert doc["output_tokens"] == 1
    assert 0 < nano(doc["cost_usd"]) <= nano(doc["hold_usd"])
    assert budget(doc, "cap") == (nano("5"), 0, 0)
    balance = await eventually(lambda: lab.balance("acme", "cap"), lambda balance: not balance.held)
    assert balance.consumed == nano(doc["cost_usd"])


async def test_a_stream_left_before_its_head_ends_at_once(lab: Lab) -> None:
    """Its backend has it and has not begun to answer: that connection is closed, its place is free, and its input is charged."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    await lab.org("acme")
    key = await lab.key("acme", "main", limits={"concurrent": 1})
    await lab.budget("acme", "cap", "5")
    fake.failing["m"] = "stall"
    waiting = asyncio.create_task(lab.stream(key, "m", max_tokens=50))
    await until(lambda: len(fake.received) == 1, "it is dispatched")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    doc = await explained(lab, key, fake.received[0].id, "completed")
    assert (doc["abandoned"], doc["estimated"], doc["tries"][0]["error"]) == (True, True, "caller_left")
    assert 0 < nano(doc["cost_usd"]) < nano(doc["hold_usd"])
    balance = await eventually(lambda: lab.balance("acme", "cap"), lambda balance: not balance.held)
    assert balance.consumed == nano(doc["cost_usd"])
    fake.failing.clear()
    assert (await lab.chat(key, "m", max_tokens=5)).status == 200


async def test_a_caller_who_leaves_a_plain_request_is_charged_exactly(lab: Lab) -> None:
    """It is read to its end, so that its usage is exact."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = (await lab.org("acme"))["main"]
    gate = fake.gates["m"] = asyncio.Event()
    asking = asyncio.create_task(lab.chat(key, "m", max_tokens=50))
    await until(lambda: len(fake.received) == 1, "it is dispatched")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    gate.set()
    doc = await explained(lab, key, fake.received[0].id, "completed")
    assert nano(doc["cost_usd"]) == cost(PRICE, 3, 50)
    assert doc["estimated"] is False


async def test_a_decision_is_for_its_own_organization(lab: Lab) -> None:
    """Another organization's key, and another project's, find nothing."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    keys = await lab.org("acme", ("main", "rest"))
    strangers = [(await lab.org("other"))["main"], keys["rest"]]
    answer = await served(lab, keys["main"])
    await explained(lab, keys["main"], answer.id, "completed")
    for stranger in strangers:
        headers = {"authorization": f"Bearer {stranger.secret}"}
        assert (await lab.http.call("GET", f"/v1/requests/{answer.id}", None, headers)).status == 404
