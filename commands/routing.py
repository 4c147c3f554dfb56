"""Backends and the models routed to them."""

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from commands.handling import Changes
from commands.ports import Secrets
from commands.rules import change, known_backend
from domain import backend, model
from domain.backend import Backend, Connection, PutBackend
from domain.ids import PLATFORM
from domain.model import Model, PublishModel


def put_backend(changes: Changes, id: str, connection: Connection, credential: str | UnsetType | None) -> Backend:
    """Registers a backend or replaces how it is reached. The credential can be written only: left out, it stays."""
    known: Backend | None = changes.state(PLATFORM, backend.KIND, id)
    sealed = _sealed(changes.secrets, credential, None if known is None else known.credential)
    command = PutBackend(connection=replace(connection, credential=sealed))
    state: Backend = change(changes, PLATFORM, backend.KIND, id, command)
    return state


def publish_model(changes: Changes, id: str, command: PublishModel) -> Model:
    """Publishes a model or replaces its terms. Raises `Invalid` naming the route whose backend does not exist."""
    for number, route in enumerate(command.routes):
        known_backend(changes, route.backend, f"routes.{number}.backend")
    state: Model = change(changes, PLATFORM, model.KIND, id, command)
    return state


def _sealed(secrets: Secrets, credential: str | UnsetType | None, known: str | None) -> str | None:
    if credential is UNSET:
        return known
    if credential is None:
        return None
    if known is not None and secrets.unseal(known) == credential:
        return known  # sealing again would look like a change
    return secrets.seal(credential)
