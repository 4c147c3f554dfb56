"""What a caller is told at a rate limit: when to come back, or that coming back can never help."""

from tests.lab import Lab


async def test_a_full_limit_says_when_to_come_back_and_an_impossible_request_that_it_never_can(lab: Lab) -> None:
    """Both are 429 `rate_limit_exceeded`, as SDKs know it. What is above a whole limit carries `x-should-retry: false`, so that
    no SDK tries again, and says how large it is and what is allowed; it uses up nothing."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    await lab.org("acme")
    key = await lab.key("acme", "main", limits={"tokens_per_minute": 1000})
    never = await lab.chat(key, "m", max_completion_tokens=2000)
    assert (never.status, never.code) == (429, "rate_limit_exceeded")
    assert never.headers["x-should-retry"] == "false"
    assert "retry-after" not in never.headers
    assert "1000 tokens per minute" in never.json()["error"]["message"]
    assert "never" in never.json()["error"]["message"]
    assert never.headers["x-ratelimit-limit-tokens"] == never.headers["x-ratelimit-remaining-tokens"] == "1000"
    assert (await lab.chat(key, "m", max_completion_tokens=800)).status == 200
    full = await lab.chat(key, "m", max_completion_tokens=800)
    assert (full.status, full.code) == (429, "rate_limit_exceeded")
    assert "x-should-retry" not in full.headers
    assert 1 <= int(full.headers["retry-after"]) <= 61
    assert len(fake.received) == 1


async def test_keys_of_an_organization_share_its_limits(lab: Lab) -> None:
    """Whatever each may by itself; the refusal names the limit in the way, and headers tell the tightest of all."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    await lab.org("acme")
    one = await lab.key("acme", "main", limits={"requests_per_minute": 100})
    two = await lab.key("acme", "main")
    await lab.admin("PATCH", "/orgs/acme", {"limits": {"requests_per_minute": 3, "models": {"m": {"concurrent": 9}}}})
    assert (await lab.chat(one, "m")).headers["x-ratelimit-remaining-requests"] == "2"
    assert (await lab.chat(two, "m")).headers["x-ratelimit-remaining-requests"] == "1"
    assert (await lab.chat(one, "m")).headers["x-ratelimit-limit-requests"] == "3"
    refused = await lab.chat(two, "m")
    assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
    assert refused.json()["error"]["limit"] == {
        "scope": {"kind": "org", "id": None},
        "model": None,
        "name": "requests_per_minute",
        "value": 3,
    }
    await lab.admin("PATCH", "/orgs/acme", {"limits": {"requests_per_minute": None}})
    assert (await lab.chat(two, "m")).status == 200
    assert len(fake.received) == 4
