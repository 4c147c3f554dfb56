"""One authenticated call of the command API: what it may do, and how it is carried out and answered."""

import asyncio
import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from fastapi import Depends, Header, Query, Request, Response
from pydantic import BaseModel

from api.admin.entrance import ADMIN_ENTRY, BODY, REQUEST_ID
from commands import handling
from commands.handling import Changes, Commands, Reply
from commands.ports import Balances, Clock, Directory, Entry, Secrets
from commands.reconcile import Reconciliation
from commands.tracing import trace_of
from domain import organization
from domain.admin_key import AdminKey, AdminRole
from domain.errors import Forbidden, NotFound, invalid
from domain.ids import PLATFORM

POSITION = "x-tollhouse-position"

Right = Literal["read", "budgets", "manage"]

_RIGHTS: dict[AdminRole, frozenset[Right]] = {
    "platform-admin": frozenset(("read", "budgets", "manage")),
    "org-admin": frozenset(("read", "budgets", "manage")),
    "org-billing": frozenset(("read", "budgets")),
    "org-viewer": frozenset(("read",)),
}

_ETAG = re.compile(r'(?:W/)?"?(\d{1,9})"?')
_IDEMPOTENCY_KEY = re.compile(r'"?([\x21\x23-\x7e]{1,255})"?')

Document = Callable[[Entry], BaseModel]
"""How an aggregate is shown."""


@dataclass(frozen=True, slots=True)
class AdminDeps:
    """What the command API stands on. `balances` and `reconciliation` are asked for each time: the view may be switched."""

    commands: Commands
    directory: Directory
    secrets: Secrets
    balances: Callable[[], Balances]
    reconciliation: Callable[[], Reconciliation]
    clock: Clock
    max_body: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """See the module. `request` says how a command came."""

    deps: AdminDeps
    id: str
    admin: AdminKey
    request: handling.Request

    # -- what it may do

    def platform(self) -> None:
        """For platform admins only; for everybody else there is nothing here (`NotFound`)."""
        if self.admin.org is not None:
            raise NotFound("no such resource")

    def may(self, right: Right, org: str) -> None:
        """Raises `NotFound` for another's organization, `Forbidden` for a right that the role lacks in its own."""
        if self.admin.org not in (None, org):
            raise NotFound("no such organization")
        if right not in _RIGHTS[self.admin.role]:
            raise Forbidden(f"the role {self.admin.role} may not do this")

    def governs(self, org: str) -> None:
        """For what only a platform admin may do to an organization."""
        self.may("read", org)
        if self.admin.org is not None:
            raise Forbidden("only a platform admin may do this")

    # -- reading

    async def show(self, org: str, kind: str, id: str, document: Document) -> Response:
        """One resource with its ETag. Raises `NotFound`."""
        found = None
        if org == PLATFORM or await self._exists(org):
            found = await asyncio.to_thread(self.deps.directory.get, org, kind, id)
        if found is None:
            raise NotFound(f"no such {kind}")
        return _json(document(found).model_dump_json().encode(), headers={"etag": f'"{found.version}"'})

    async def page(self, org: str | None, kind: str, page: "Page", document: Document) -> Response:
        """One page of resources, in order of creation; `org` None: of all organizations."""
        if org not in (None, PLATFORM) and not await self._exists(str(org)):
            raise NotFound("no such organization")
        found = await asyncio.to_thread(self.deps.directory.list, org, kind, page.after, page.limit + 1)
        data = [msgspec.Raw(document(entry).model_dump_json().encode()) for entry in found[: page.limit]]
        more = len(found) > page.limit
        next_cursor = _cursor(found[page.limit - 1].created) if more else None
        return _json(msgspec.json.encode({"data": data, "next_cursor": next_cursor}))

    async def _exists(self, org: str) -> bool:
        return await asyncio.to_thread(self.deps.directory.get, org, organization.KIND, org) is not None

    # -- commanding

    async def command(self, plan: handling.Plan) -> Response:
        """Carries out `plan` and answers what it answers, with ETag and position."""
        answer = await self.deps.commands.execute(self.request, plan)
        headers = {} if answer.etag is None else {"etag": answer.etag}
        if not self.request.dry_run:
            headers[POSITION] = f"j{answer.position}"
        return _json(answer.body, answer.status, headers)

    async def change(
        self, org: str, kind: str, id: str, effect: Callable[[Changes], object], document: Document, status: int = 200
    ) -> Response:
        """Carries out `effect` on one resource and answers the resource (nothing with status 204, 201 if PUT made it)."""

        def plan(changes: Changes) -> Reply:
            new = changes.state(org, kind, id) is None
            effect(changes)
            version = changes.version(org, kind, id)
            if status == 204:
                return Reply(b"", status, version)
            entry = Entry(org, kind, id, version, 0, changes.state(org, kind, id))
            return Reply(document(entry).model_dump_json().encode(), 201 if new else status, version)

        return await self.command(plan)


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list: at most `limit`, created after `after`."""

    limit: int
    after: int


async def _page(
    limit: Annotated[int, Query(ge=1, le=1000)] = 100, cursor: Annotated[str | None, Query(max_length=100)] = None
) -> Page:
    return Page(limit, 0 if cursor is None else _after(cursor))


async def _call(
    request: Request,
    idempotency_key: Annotated[str | None, Header()] = None,
    if_match: Annotated[str | None, Header()] = None,
    dry_run: bool = False,
) -> Call:
    entry: Entry = request.scope[ADMIN_ENTRY]
    trace = trace_of(dict(request.scope["headers"]).get)
    return Call(
        deps=request.app.state.deps,
        id=entry.id,
        admin=entry.state,
        request=handling.Request(
            actor=entry.id,
            key=None if idempotency_key is None else _idempotency_key(idempotency_key),
            fingerprint="" if idempotency_key is None else _fingerprint(request),
            dry_run=dry_run,
            if_match=None if if_match is None else _version(if_match),
            correlation_id=request.scope[REQUEST_ID],
            traceparent=None if trace is None else trace.context,
        ),
    )


Caller = Annotated[Call, Depends(_call)]
Paged = Annotated[Page, Depends(_page)]


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, "application/json" if body else None)


def _fingerprint(request: Request) -> str:
    """Equal for equal commands: the body counts as the JSON value it is, however it is written."""
    body: bytes = request.scope[BODY]
    with suppress(msgspec.DecodeError):  # no JSON: the bytes themselves, which no command accepts anyway
        body = msgspec.json.encode(msgspec.json.decode(body), order="sorted")
    parts = (request.method.encode(), request.url.path.encode(), request.url.query.encode(), body)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _idempotency_key(text: str) -> str:
    match = _IDEMPOTENCY_KEY.fullmatch(text)
    if match is None:
        raise invalid("Idempotency-Key", "must be 1 to 255 visible ASCII characters, quoted or not")
    return match.group(1)


def _version(text: str) -> int:
    if text.strip() == "*":
        return -1
    match = _ETAG.fullmatch(text.strip())
    if match is None:
        raise invalid("If-Match", 'must be an ETag that an answer gave, like "3"')
    return int(match.group(1))


def _cursor(created: int) -> str:
    return base64.urlsafe_b64encode(f"c{created}".encode()).decode().rstrip("=")


def _after(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        text = ""
    if not re.fullmatch(r"c[0-9]{1,18}", text):
        raise invalid("cursor", "must be a next_cursor that a list answered")
    return int(text[1:])
