"""What the command line prints: the same rows in four formats, and only data on stdout."""

import csv
import io
import json

import pytest

from tests.fake_api import FakeApi
from tests.unit.conftest import Cli

ROWS = [
    {"id": "acme", "name": "Acme, Inc.", "timezone": "Asia/Kathmandu", "version": 3, "extra": None},
    {"id": "globex", "name": 'Globex "G"', "timezone": "UTC", "version": 1, "extra": {"a": 1}},
]


@pytest.fixture
def orgs(api: FakeApi) -> FakeApi:
    """Two pages of one organization each."""
    api.on("GET", "/admin/v1/orgs", {"data": ROWS[:1], "next_cursor": "c2", "as_of": "now"})
    api.on("GET", "/admin/v1/orgs", {"data": ROWS[1:], "next_cursor": None})
    return api


def test_a_table_has_aligned_columns_and_is_the_default(orgs: FakeApi, cli: Cli) -> None:
    """Names in capitals, one row a line, nothing cut off, no colour."""
    ran = cli("org", "list")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "ID      NAME        TIMEZONE        VERSION",
        "acme    Acme, Inc.  Asia/Kathmandu  3",
        'globex  Globex "G"  UTC             1',
    ]


def test_json_is_one_document_with_all_pages(orgs: FakeApi, cli: Cli) -> None:
    """All rows in `data`, with what the server says beside them."""
    ran = cli("org", "list", "-o", "json")
    assert json.loads(ran.out) == {"as_of": "now", "data": ROWS}
    assert [asked.query for asked in orgs.asked] == [{}, {"cursor": "c2"}]


def test_ndjson_is_a_row_a_line(orgs: FakeApi, cli: Cli) -> None:
    """Each line is a whole document."""
    ran = cli("org", "list", "-o", "ndjson")
    assert [json.loads(line) for line in ran.out.splitlines()] == ROWS


def test_csv_reads_back(orgs: FakeApi, cli: Cli) -> None:
    """Every field, quoted where needed; nothing for null, compact JSON for what is nested."""
    ran = cli("org", "list", "-o", "csv")
    read = list(csv.DictReader(io.StringIO(ran.out)))
    assert [row["name"] for row in read] == ["Acme, Inc.", 'Globex "G"']
    assert [row["extra"] for row in read] == ["", '{"a":1}']


def test_an_empty_list_is_a_header_and_an_empty_csv_nothing(api: FakeApi, cli: Cli) -> None:
    """No rows are no error."""
    api.on("GET", "/admin/v1/orgs", {"data": [], "next_cursor": None})
    assert cli("org", "list").out.split() == ["ID", "NAME", "TIMEZONE", "STATUS", "BUDGET_STATUS", "VERSION"]
    assert cli("org", "list", "-o", "csv").out == ""
    assert json.loads(cli("org", "list", "-o", "json").out) == {"data": []}


def test_one_thing_is_a_line_per_field(api: FakeApi, cli: Cli) -> None:
    """Amounts are printed as they came."""
    api.on("GET", "/read/v1/orgs/acme/budgets/cap", {"id": "cap", "limit_usd": "5.000000000", "period_end": None})
    ran = cli("budget", "show", "cap", "--org", "acme")
    assert ran.out.splitlines() == ["id          cap", "limit_usd   5.000000000", "period_end"]


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_exports_are_the_servers_own_bytes(api: FakeApi, cli: Cli, form: str) -> None:
    """`request list -o csv` asks the server for CSV and passes it on."""
    api.on("GET", "/read/v1/orgs/acme/requests", b"id,cost_usd\nreq_1,0.000000001\n")
    ran = cli("request", "list", "--org", "acme", "-o", form)
    assert (ran.code, ran.out) == (0, "id,cost_usd\nreq_1,0.000000001\n")
    assert api.asked[0].query == {"format": form}


def test_a_wrong_format_is_a_usage_error(cli: Cli) -> None:
    """-o takes table, json, ndjson and csv."""
    assert cli("org", "list", "-o", "xml").code == 2


def test_a_secret_is_printed_once_and_said_so(api: FakeApi, cli: Cli) -> None:
    """The hint goes to stderr, so that JSON on stdout stays JSON."""
    api.on("POST", "/admin/v1/orgs/acme/keys", {"id": "key_1", "secret": "th_sk_x"}, 201)
    ran = cli("key", "create", "app", "--project", "web", "--org", "acme", "-o", "json")
    assert json.loads(ran.out)["secret"] == "th_sk_x"
    assert "once" in ran.err
