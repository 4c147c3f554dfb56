"""Commands reach the right path with the right body, are carried out once, and fail with their own exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_api import FakeApi
from tests.unit.conftest import Cli


@pytest.mark.parametrize(
    ("words", "method", "path", "body"),
    [
        (
            "org create acme --timezone Asia/Kathmandu",
            "POST",
            "/admin/v1/orgs",
            {"id": "acme", "name": "acme", "timezone": "Asia/Kathmandu"},
        ),
        ("org update acme --budget-status 429", "PATCH", "/admin/v1/orgs/acme", {"budget_status": 429}),
        (
            "org update acme --requests-per-minute 60 --concurrent 0",
            "PATCH",
            "/admin/v1/orgs/acme",
            {"limits": {"requests_per_minute": 60, "concurrent": None}},
        ),
        (
            "org update acme --model gpt-4.1 --tokens-per-minute 9000",
            "PATCH",
            "/admin/v1/orgs/acme",
            {"limits": {"models": {"gpt-4.1": {"tokens_per_minute": 9000}}}},
        ),
        (
            "project update web --org acme --concurrent 5",
            "PATCH",
            "/admin/v1/orgs/acme/projects/web",
            {"limits": {"concurrent": 5}},
        ),
        (
            "user limit usr_1 --org acme --tokens-per-minute 100",
            "PATCH",
            "/admin/v1/orgs/acme/users/usr_1",
            {"limits": {"tokens_per_minute": 100}},
        ),
        ("org suspend acme --yes --reason fraud", "POST", "/admin/v1/orgs/acme/suspend", {"reason": "fraud"}),
        ("org close acme --yes", "DELETE", "/admin/v1/orgs/acme", None),
        ("project create web --org acme", "POST", "/admin/v1/orgs/acme/projects", {"id": "web", "name": "web"}),
        (
            "user invite a@b.example --role org-viewer --org acme",
            "POST",
            "/admin/v1/orgs/acme/users",
            {"email": "a@b.example", "role": "org-viewer"},
        ),
        ("user remove usr_1 --org acme -y", "DELETE", "/admin/v1/orgs/acme/users/usr_1", None),
        (
            "key create app --project web --org acme --model m --model n --concurrent 3",
            "POST",
            "/admin/v1/orgs/acme/keys",
            {"name": "app", "project": "web", "models": ["m", "n"], "limits": {"concurrent": 3}},
        ),
        (
            "key rotate key_1 --org acme --grace-seconds 60",
            "POST",
            "/admin/v1/orgs/acme/keys/key_1/rotate",
            {"grace_seconds": 60},
        ),
        ("key revoke key_1 --org acme --yes", "POST", "/admin/v1/orgs/acme/keys/key_1/revoke", {}),
        (
            "admin-key create ci --role org-viewer --org acme",
            "POST",
            "/admin/v1/admin-keys",
            {"name": "ci", "role": "org-viewer", "org": "acme"},
        ),
        (
            "budget set cap --org acme --limit 5 --period lifetime",
            "PUT",
            "/admin/v1/orgs/acme/budgets/cap",
            {"scope": {"kind": "org"}, "limit_usd": "5", "period": "lifetime", "mode": "hard"},
        ),
        (
            "budget set b --org acme --limit 1.5 --period every:5h --scope project:web --mode soft --threshold 0.5 "
            "--anchor 2026-01-15T00:00:00 --timezone UTC --week-start 6 --model m",
            "PUT",
            "/admin/v1/orgs/acme/budgets/b",
            {
                "scope": {"kind": "project", "id": "web"},
                "limit_usd": "1.5",
                "period": {"every": "5h"},
                "mode": "soft",
                "thresholds": [0.5],
                "anchor": "2026-01-15T00:00:00",
                "timezone": "UTC",
                "week_start": 6,
                "models": ["m"],
            },
        ),
        ("budget update b --org acme --limit 7", "PATCH", "/admin/v1/orgs/acme/budgets/b", {"limit_usd": "7"}),
        (
            "budget adjust b --org acme --amount -1.5 --reason gift",
            "POST",
            "/admin/v1/orgs/acme/budgets/b/adjust",
            {"amount_usd": "-1.5", "reason": "gift"},
        ),
        ("budget remove b --org acme --yes", "DELETE", "/admin/v1/orgs/acme/budgets/b", None),
        (
            "backend set fake http://127.0.0.1:1/v1 --timeout-seconds 5",
            "PUT",
            "/admin/v1/backends/fake",
            {"url": "http://127.0.0.1:1/v1", "protocol": "openai", "timeout_seconds": 5.0},
        ),
        (
            "backend set b http://h/v1 --first-byte-seconds 2 --idle-seconds 9 --max-concurrent 3 --requests-per-minute 60"
            " --health-path /models --health-seconds 5 --output-cap-field max_tokens",
            "PUT",
            "/admin/v1/backends/b",
            {
                "url": "http://h/v1",
                "protocol": "openai",
                "first_byte_seconds": 2.0,
                "idle_seconds": 9.0,
                "max_concurrent": 3,
                "requests_per_minute": 60,
                "health_path": "/models",
                "health_seconds": 5.0,
                "output_cap_field": "max_tokens",
            },
        ),
        (
            "model set m --route a --max-output 10 --context 100 --balance least_loaded",
            "PUT",
            "/admin/v1/models/m",
            {
                "routes": [{"backend": "a", "upstream_model": "m"}],
                "max_output_tokens": 10,
                "context_tokens": 100,
                "balance": "least_loaded",
            },
        ),
        (
            "org update acme --fallback large:budget_exhausted=small --fallback large:context_window=long",
            "PATCH",
            "/admin/v1/orgs/acme",
            {"fallbacks": {"large": {"budget_exhausted": "small", "context_window": "long"}}},
        ),
        ("org update acme --fallback none", "PATCH", "/admin/v1/orgs/acme", {"fallbacks": {}}),
        ("backend kill fake --yes", "POST", "/admin/v1/backends/fake/kill", {}),
        (
            "model set gpt-4o --route a --route b=gpt-4o-eu,weight=2,tier=1 --max-output 4096 --context 128000",
            "PUT",
            "/admin/v1/models/gpt-4o",
            {
                "routes": [
                    {"backend": "a", "upstream_model": "gpt-4o"},
                    {"backend": "b", "upstream_model": "gpt-4o-eu", "weight": 2, "tier": 1},
                ],
                "max_output_tokens": 4096,
                "context_tokens": 128000,
            },
        ),
        (
            "price set m --input-usd 2.5 --output-usd 10 --per-request-usd 0.001",
            "PUT",
            "/admin/v1/prices/m",
            {"input_usd": "2.5", "output_usd": "10", "per_request_usd": "0.001"},
        ),
        (
            "request write-off req_1 --org acme --reason agreed --yes",
            "POST",
            "/admin/v1/orgs/acme/requests/req_1/write-off",
            {"reason": "agreed"},
        ),
    ],
)
def test_a_command_is_one_request(api: FakeApi, cli: Cli, words: str, method: str, path: str, body: object) -> None:
    """The path and the body of SURFACE, only what was given, with the admin key and an Idempotency-Key of its own."""
    api.on(method, path, {"id": "x"})
    ran = cli(*words.split())
    assert (ran.code, ran.out) == (0, "id  x\n")
    (asked,) = api.asked
    assert (asked.method, asked.path, asked.body) == (method, path, body)
    assert asked.headers["authorization"] == "Bearer th_ak_test"
    assert len(asked.headers["idempotency-key"]) == 36


def test_a_credential_comes_from_a_file_or_stdin(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    """Never from an argument, where others could see it."""
    api.on("PUT", "/admin/v1/backends/b", {"id": "b"})
    (tmp_path / "credential").write_text("sk-1\n")
    cli("backend", "set", "b", "https://api.example/v1", "--credential-file", "credential")
    cli("backend", "set", "b", "https://api.example/v1", "--credential-file", "-", stdin="sk-2\n")
    assert [asked.body["credential"] for asked in api.asked] == ["sk-1", "sk-2"]


def test_names_cannot_leave_their_segment_of_the_path(api: FakeApi, cli: Cli) -> None:
    """A slash in an id is escaped, not a longer path."""
    cli("org", "show", "../admin-keys")
    assert api.asked[0].path == "/admin/v1/orgs/..%2Fadmin-keys"


def test_a_dry_run_prints_events_and_says_so_to_the_server(api: FakeApi, cli: Cli) -> None:
    """dry_run=true, no question asked, the events printed."""
    events = [{"type": "OrganizationSuspended", "stream": "acme/org/acme", "data": {"reason": None}}]
    api.on("POST", "/admin/v1/orgs/acme/suspend", {"events": events})
    ran = cli("org", "suspend", "acme", "--dry-run", "-o", "json")
    assert json.loads(ran.out) == {"data": events}
    assert api.asked[0].query == {"dry_run": "true"}


def test_taking_away_without_a_terminal_needs_yes(api: FakeApi, cli: Cli) -> None:
    """Nothing is sent, exit 2."""
    ran = cli("key", "revoke", "key_1", "--org", "acme")
    assert (ran.code, api.asked) == (2, [])
    assert "--yes" in ran.err


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (400, "invalid_field", 2),
        (401, "invalid_api_key", 4),
        (403, "forbidden", 4),
        (404, "not_found", 3),
        (409, "budget_scope_fixed", 5),
        (412, "version_conflict", 5),
        (422, "model_unpriced", 2),
        (429, "rate_limit_exceeded", 1),
        (500, "internal_error", 1),
        (503, "log_unavailable", 1),
    ],
)
def test_a_refusal_has_its_exit_code_and_its_reason(
    api: FakeApi, cli: Cli, status: int, code: str, exit_code: int
) -> None:
    """0 ok, 1 error, 2 usage, 3 not found, 4 auth, 5 conflict; the server's message and code on stderr, nothing on stdout."""
    api.refuse("GET", "/admin/v1/orgs/acme", status, code)
    ran = cli("org", "show", "acme")
    assert (ran.code, ran.out) == (exit_code, "")
    assert f"because of {code}" in ran.err
    assert f"({code})" in ran.err


def test_bad_fields_are_named(api: FakeApi, cli: Cli) -> None:
    """The field and what would be right, as the server says."""
    errors = [{"field": "limit_usd", "message": "must be between 0 and 9000000 dollars"}]
    api.refuse("PUT", "/admin/v1/orgs/acme/budgets/b", 400, "invalid_field", errors=errors)
    ran = cli("budget", "set", "b", "--org", "acme", "--limit", "1e30")
    assert ran.code == 2
    assert "limit_usd: must be between 0 and 9000000 dollars" in ran.err


@pytest.mark.parametrize(
    "words",
    [
        "",
        "org",
        "org fly",
        "org show",
        "budget set b",
        "budget list",
        "budget set b --org acme --limit 1 --scope team:x",
        "model set m --route a,size=3 --max-output 1 --context 1",
        "org list --bogus",
        "hello --listen 8080",
        "hello --error-rate 2",
        "load --trace none.csv --key k",
        "reconcile --file none.ndjson",
        "completion tcsh",
    ],
)
def test_wrong_usage_is_exit_2_and_sends_nothing(api: FakeApi, cli: Cli, words: str) -> None:
    """Missing, unknown and impossible arguments."""
    assert cli(*words.split()).code == 2
    assert api.asked == []


def test_nobody_there_is_exit_1_and_says_where(cli: Cli) -> None:
    """Port 1 of this machine answers nothing."""
    ran = cli("org", "list", "--url", "http://127.0.0.1:1")
    assert ran.code == 1
    assert "nothing answers at http://127.0.0.1:1" in ran.err


def test_without_a_url_the_folders_own_server_and_key_are_used(
    api: FakeApi, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DIR/server.url and DIR/admin.key; the key goes to no other server."""
    monkeypatch.delenv("TOLLHOUSE_URL")
    monkeypatch.delenv("TOLLHOUSE_ADMIN_KEY")
    (tmp_path / "d").mkdir()
    ran = cli("org", "list", "--data", "d")
    assert ran.code == 1
    assert "tollhouse serve --data d" in ran.err
    (tmp_path / "d" / "server.url").write_text(f"{api.url}\n")
    (tmp_path / "d" / "admin.key").write_text("th_ak_folder\n")
    api.on("GET", "/admin/v1/orgs", {"data": [], "next_cursor": None})
    assert cli("org", "list", "--data", "d").code == 0
    assert api.asked[-1].headers["authorization"] == "Bearer th_ak_folder"
    (tmp_path / "d" / "server.url").write_text("http://127.0.0.1:1\n")
    assert cli("org", "list", "--data", "d", "--url", api.url).code == 0
    assert "authorization" not in api.asked[-1].headers


def test_a_read_waits_for_what_was_written_in_the_same_run(api: FakeApi, cli: Cli) -> None:
    """The position of a command's answer goes along with the next read."""
    from infra.adapters.api_client import ApiClient

    api.on("POST", "/admin/v1/orgs", {"id": "a"}, 201, x_tollhouse_position="j7")
    api.on("GET", "/read/v1/orgs/a/budgets", {"data": []})
    client = ApiClient(api.url, None)
    client.send("POST", "/admin/v1/orgs", {"id": "a"})
    client.get("/read/v1/orgs/a/budgets")
    client.close()
    assert api.asked[-1].headers["x-tollhouse-position"] == "j7"


def test_help_imports_nothing_heavy() -> None:
    """What a command needs is imported when it runs."""
    heavy = (
        "pydantic",
        "rich",
        "fastapi",
        "uvicorn",
        "genai_prices",
        "http.client",
        "chdb",
        "uvloop",
        "sqlite3",
        "asyncio",
    )
    code = f"import sys, cli.main; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
