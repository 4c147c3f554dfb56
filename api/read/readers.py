"""Who reads: an admin key, for every organization or its own, or a service key, for its own project."""

from dataclasses import dataclass

from starlette.datastructures import Headers

from api.read.deps import ReadDeps
from domain.credential import ADMIN, SERVICE, well_formed
from domain.errors import Forbidden, Unauthenticated


@dataclass(frozen=True, slots=True)
class Reader:
    """`org` None: a platform admin. `project` only for service keys: all they see."""

    hash: str
    org: str | None
    project: str | None = None
    user: str | None = None
    key: str | None = None


async def authenticated(deps: ReadDeps, headers: Headers) -> Reader:
    """The reader of a request. Raises `Unauthenticated`; absent, unknown, revoked and expired keys look the same.

    A key that is not known may have been issued a moment ago: the log is asked.
    """
    scheme, _, key = headers.get("authorization", "").partition(" ")
    key = key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    await deps.refresh()
    if well_formed(key, ADMIN) or well_formed(key, SERVICE):
        hash = deps.secrets.hash(key)
        found = resolved(deps, hash)
        if found is None:
            await deps.prove()
            found = resolved(deps, hash)
        if found is not None:
            return found
    raise Unauthenticated("no valid key: send Authorization: Bearer th_ak_… (or th_sk_…)")


def resolved(deps: ReadDeps, hash: str) -> Reader | None:
    """The reader a keyed hash stands for now, None if there is none. Raises `Forbidden` for a service key under a
    suspension."""
    admin = deps.keyring.admin(hash)
    if admin is not None:
        return Reader(hash, admin[1].org)
    caller = deps.keyring.caller(hash, deps.clock())
    if caller is None:
        return None
    if caller.refusal is not None:
        raise Forbidden(caller.refusal.replace("_", " "), code=caller.refusal)
    return Reader(hash, caller.org, caller.project, caller.user, caller.key)
