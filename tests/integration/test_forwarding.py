"""What a backend's status says about the books."""

import pytest

from tests.lab import Lab
from tests.waiting import eventually

STATUSES = {500: "failed", 503: "failed", 429: "failed", 502: "unconfirmed", 504: "unconfirmed", 201: "completed"}


async def test_a_backend_that_gave_up_waiting_may_have_served() -> None:
    """What stands in front of a model and answers for it does not know what the model did: its whole hold counts."""
    async with Lab() as lab:
        fake = await lab.fake()
        key = (await lab.org("acme"))["main"]
        for status in STATUSES:
            fake.refusing[f"m-{status}"] = status
            await lab.model(f"m-{status}", fake.url)
            answer = await lab.chat(key, f"m-{status}", max_tokens=10)
            assert answer.status == (status if status < 500 else 502)
        wanted = {f"m-{status}": outcome for status, outcome in STATUSES.items()}
        rows = await eventually(
            lambda: lab.rows("acme"), lambda rows: {row.model: row.outcome for row in rows} == wanted
        )
        assert {row.model: row.outcome for row in rows} == wanted
        for row in rows:
            assert (row.cost > 0) == (row.outcome != "failed"), row


async def test_a_backend_at_an_address_that_is_not_public_gets_nothing() -> None:
    """Nothing is sent there and nothing is charged, and the caller is not told where it would have gone."""
    async with Lab() as lab:
        key = (await lab.org("acme"))["main"]
        await lab.model("m", "http://169.254.169.254/latest")
        refused = await lab.chat(key, "m", max_tokens=10)
        assert (refused.status, refused.code) == (502, "upstream_error")
        assert "169.254" not in refused.body.decode()
        rows = await eventually(lambda: lab.rows("acme"), lambda rows: [row.outcome for row in rows] == ["failed"])
        assert [(row.outcome, row.cost) for row in rows] == [("failed", 0)]


@pytest.mark.parametrize("path", ["/read/v1/orgs/acme/budgets", "/v1/organization/costs"])
async def test_a_long_data_path_serves_reads_too(path: str) -> None:
    """The socket between the two processes moves to a short path of its own."""
    lab = Lab()
    lab.data = lab.folder / ("deep-" * 20) / "data"
    lab.product.command[lab.product.command.index("--data") + 1] = str(lab.data)
    async with lab:
        await lab.org("acme")
        head = {"authorization": f"Bearer {lab.admin_key}", "openai-organization": "acme"}
        asked = f"{path}?start_time=0" if path.startswith("/v1") else path
        answer = await eventually(
            lambda: lab.http.call("GET", asked, None, head), lambda answer: answer.code != "not_ready"
        )
        assert answer.status == 200, answer.body
