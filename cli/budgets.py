"""``tollhouse budget``: limits, and what is left of them."""

from typing import Annotated, Any

import typer

from cli.orgs import OrgOption
from cli.paths import org_path, read_path, segment
from cli.session import Effect, Session, command, noun
from domain.errors import invalid

COLUMNS = (
    "id",
    "scope",
    "period",
    "mode",
    "limit_usd",
    "consumed_usd",
    "held_usd",
    "remaining_usd",
    "period_end",
)

_LIMIT = typer.Option("--limit", help="Dollars, like 12.50.", show_default=False)
_MODE = typer.Option("--mode", help="hard (never passed) or soft (recorded).", show_default=False)
_MODELS = typer.Option("--model", help="Count only this model; repeatable.", show_default=False)
_THRESHOLDS = typer.Option(
    "--threshold", help="Part of the limit to tell about, like 0.8; repeatable.", show_default=False
)


def parse_scope(text: str) -> dict[str, str]:
    """``org``, or ``project:ID``, ``user:ID``, ``key:ID``. Raises `Invalid`."""
    kind, colon, name = text.partition(":")
    if text == "org":
        return {"kind": "org"}
    if kind in ("project", "user", "key") and colon and name:
        return {"kind": kind, "id": name}
    raise invalid("--scope", f"must be org, project:ID, user:ID or key:ID; got {text!r}")


def parse_period_option(text: str) -> str | dict[str, Any]:
    """``day`` … ``lifetime`` as they are, ``every:5h`` and ``rolling:30`` as the API has them; it checks the rest."""
    kind, colon, value = text.partition(":")
    if kind == "every" and colon:
        return {"every": value}
    if kind == "rolling" and value.isdigit():
        return {"rolling_days": int(value)}
    return text


def register(root: typer.Typer) -> None:
    """Adds the noun to `root`."""
    app = noun(root, "budget", "Budgets of an organization, with their balances.")

    def path(session: Session, org: str | None, budget: str) -> str:
        return f"{org_path(session.org(org))}/budgets/{segment(budget)}"

    @command(app, "set", Effect.CHANGES)
    def set_(
        session: Session,
        budget: str,
        limit: Annotated[str, _LIMIT],
        org: OrgOption = None,
        scope: Annotated[str, typer.Option("--scope", help="org, project:ID, user:ID or key:ID; for life.")] = "org",
        period: Annotated[
            str,
            typer.Option("--period", help="day, week, month, quarter, year, lifetime, every:5h, rolling:30; for life."),
        ] = "month",
        mode: Annotated[str, _MODE] = "hard",
        timezone: Annotated[str | None, typer.Option("--timezone", help="IANA zone; the organization's.")] = None,
        week_start: Annotated[int | None, typer.Option("--week-start", help="0 is Monday.", show_default=False)] = None,
        anchor: Annotated[
            str | None, typer.Option("--anchor", help="When a period starts.", show_default=False)
        ] = None,
        model: Annotated[list[str] | None, _MODELS] = None,
        threshold: Annotated[list[float] | None, _THRESHOLDS] = None,
    ) -> None:
        """Make a budget, or replace its limit, mode, models and thresholds."""
        owner = session.org(org)
        body = {
            "scope": parse_scope(scope),
            "limit_usd": limit,
            "period": parse_period_option(period),
            "mode": mode,
            "timezone": timezone,
            "week_start": week_start,
            "anchor": anchor,
            "models": model or None,
            "thresholds": threshold or None,
        }
        session.change("PUT", path(session, org, budget), body, then=[f"tollhouse budget show {budget} --org {owner}"])

    @command(app, "update", Effect.CHANGES)
    def update(
        session: Session,
        budget: str,
        org: OrgOption = None,
        limit: Annotated[str | None, _LIMIT] = None,
        mode: Annotated[str | None, _MODE] = None,
        model: Annotated[list[str] | None, _MODELS] = None,
        threshold: Annotated[list[float] | None, _THRESHOLDS] = None,
    ) -> None:
        """Change what is given."""
        body = {"limit_usd": limit, "mode": mode, "models": model or None, "thresholds": threshold or None}
        session.change("PATCH", path(session, org, budget), body)

    @command(app, "adjust", Effect.CHANGES)
    def adjust(
        session: Session,
        budget: str,
        amount: Annotated[str, typer.Option("--amount", help="Dollars to add; negative to take away.")],
        reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit.")],
        org: OrgOption = None,
    ) -> None:
        """Move the limit in force."""
        body = {"amount_usd": amount, "reason": reason}
        session.change("POST", f"{path(session, org, budget)}/adjust", body)

    @command(app, "list")
    def list_(session: Session, org: OrgOption = None) -> None:
        """List the budgets with their balances."""
        session.list(f"{read_path(session.org(org))}/budgets", COLUMNS)

    @command(app, "show")
    def show(
        session: Session,
        budget: str,
        org: OrgOption = None,
        as_of: Annotated[str | None, typer.Option("--as-of", help="At a past moment.", show_default=False)] = None,
    ) -> None:
        """Show a budget with its balance."""
        session.show(f"{read_path(session.org(org))}/budgets/{segment(budget)}", {"as_of": as_of})

    @command(app, "remove", Effect.REMOVES)
    def remove(session: Session, budget: str, org: OrgOption = None) -> None:
        """Stop counting and refusing by it."""
        session.confirm(f"remove budget {budget}")
        session.change("DELETE", path(session, org, budget))
