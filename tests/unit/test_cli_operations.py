"""Rebuilding, verifying, parked events and reconciliation through a running server."""

import json
from pathlib import Path

import pytest

from tests.fake_api import FakeApi
from tests.unit.conftest import Cli


def verified(name: str, equal: bool) -> dict[str, object]:
    return {
        "name": name,
        "version": 1,
        "watermark": {"0": 5},
        "events": 5,
        "live_hash": "aa",
        "rebuilt_hash": "aa" if equal else "bb",
        "equal": equal,
    }


@pytest.fixture
def server(api: FakeApi) -> FakeApi:
    """A server with two projections."""
    api.on("GET", "/healthz", {"status": "ok"})
    api.on("GET", "/admin/v1/projections", {"data": [{"name": "balances"}, {"name": "usage"}], "next_cursor": None})
    for name in ("balances", "usage"):
        api.on("POST", f"/admin/v1/projections/{name}/verify", {"operation": f"op_{name}"}, 202)
    api.on(
        "GET", "/admin/v1/operations/op_balances", {"id": "op_balances", "status": "running", "progress": {"done": 1}}
    )
    api.on("GET", "/admin/v1/operations/op_balances", {"status": "done", "result": verified("balances", True)})
    return api


def test_verify_waits_for_each_projection_and_answers_one_document(server: FakeApi, cli: Cli) -> None:
    """`-o json`: {"equal": true, "data": [...]}."""
    server.on("GET", "/admin/v1/operations/op_usage", {"status": "done", "result": verified("usage", True)})
    ran = cli("replay", "verify", "-o", "json")
    assert ran.code == 0
    assert json.loads(ran.out) == {"equal": True, "data": [verified("balances", True), verified("usage", True)]}


def test_a_difference_is_exit_6(server: FakeApi, cli: Cli) -> None:
    """The rows are printed nevertheless, and the projection is named."""
    server.on("GET", "/admin/v1/operations/op_usage", {"status": "done", "result": verified("usage", False)})
    ran = cli("replay", "verify", "-o", "json")
    assert ran.code == 6
    assert json.loads(ran.out)["equal"] is False
    assert "differs: usage" in ran.err


def test_one_projection_can_be_verified_alone(server: FakeApi, cli: Cli) -> None:
    """Only the one that was named."""
    ran = cli("replay", "verify", "balances", "-o", "ndjson")
    assert json.loads(ran.out) == verified("balances", True)


def test_a_failed_operation_is_exit_1_with_its_error(server: FakeApi, cli: Cli) -> None:
    """What the server says went wrong is on stderr."""
    server.on("POST", "/admin/v1/projections/usage/rebuild", {"operation": "op_r"}, 202)
    server.on("GET", "/admin/v1/operations/op_r", {"status": "failed", "error": "event 7 cannot be read"})
    ran = cli("replay", "rebuild", "usage")
    assert ran.code == 1
    assert "event 7 cannot be read" in ran.err


def test_parked_events_are_listed_shown_retried_and_dropped(server: FakeApi, cli: Cli) -> None:
    """Each by its id; dropping asks first."""
    server.on(
        "GET", "/admin/v1/parked", {"data": [{"id": "p1", "projection": "usage", "error": "bad"}], "next_cursor": None}
    )
    server.on("POST", "/admin/v1/parked/p1/retry", {"id": "p1", "retried": True})
    server.on("POST", "/admin/v1/parked/p1/drop", {"id": "p1", "dropped": True})
    assert json.loads(cli("parked", "list", "-o", "ndjson").out)["id"] == "p1"
    assert cli("parked", "show", "p1").code == 0
    assert cli("parked", "show", "p2").code == 3
    assert cli("parked", "retry", "p1").code == 0
    assert cli("parked", "drop", "p1").code == 2
    assert cli("parked", "drop", "p1", "--dry-run").code == 0
    assert "/admin/v1/parked/p1/drop" not in [asked.path for asked in server.asked]
    assert cli("parked", "drop", "p1", "--yes").code == 0


def test_reconcile_sends_the_lines_that_name_a_request(server: FakeApi, cli: Cli, tmp_path: Path) -> None:
    """request_id and tokens of each; lines without a request id are nobody's."""
    lines = [
        {
            "request_id": "req_1",
            "time": "t",
            "model": "m",
            "prompt_tokens": 3,
            "completion_tokens": 5,
            "state": "served",
        },
        {"request_id": None, "prompt_tokens": 1, "completion_tokens": 1},
    ]
    (tmp_path / "j").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    server.on("POST", "/admin/v1/reconcile", {"completed": 1, "not_served": 0})
    ran = cli("reconcile", "--file", "j", "--backend", "hello", "-o", "json")
    assert json.loads(ran.out) == {"data": [{"completed": 1, "not_served": 0}]}
    records = [{"request_id": "req_1", "prompt_tokens": 3, "completion_tokens": 5}]
    assert server.asked[-1].body == {"records": records, "backend": "hello"}
    cli("reconcile", "--file", "j", "--as-of", "2026-11-23T12:00:00Z")
    assert server.asked[-1].body == {"records": records, "backend": None, "as_of": "2026-11-23T12:00:00Z"}
    asked = len(server.asked)
    for moment in ("2026-11-23T12:00:00", "yesterday"):
        ran = cli("reconcile", "--file", "j", "--as-of", moment)
        assert (ran.code, "--as-of" in ran.err, len(server.asked)) == (2, True, asked)


@pytest.mark.parametrize("line", ["{", "[]", '{"request_id": "r"}'])
def test_a_record_that_is_none_is_refused_by_its_line(cli: Cli, tmp_path: Path, line: str) -> None:
    """Nothing is sent."""
    (tmp_path / "j").write_text(f'{{"request_id":"r","prompt_tokens":1,"completion_tokens":1}}\n{line}\n')
    ran = cli("reconcile", "--file", "j")
    assert ran.code == 2
    assert "line 2" in ran.err


def test_a_broken_audit_is_exit_6(api: FakeApi, cli: Cli) -> None:
    """The chain of hashes is a check."""
    api.on("GET", "/read/v1/audit/verify", {"valid": False, "events": 3})
    assert cli("audit", "verify").code == 6


def test_doctor_names_the_fix(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    """A model without a price is found, and what to do about it; exit 6."""
    api.on("GET", "/healthz", {"status": "ok"})
    api.on("GET", "/readyz", {"status": "ok"})
    api.on("GET", "/admin/v1/models", {"data": [{"id": "m"}], "next_cursor": None})
    api.on("GET", "/admin/v1/prices", {"data": [], "next_cursor": None})
    ran = cli("doctor")
    assert ran.code == 6
    assert "tollhouse price seed" in ran.out
