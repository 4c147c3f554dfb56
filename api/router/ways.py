"""The way of a request to a backend: which one was claimed for it, and how it is carried there."""

from collections.abc import Collection
from dataclasses import dataclass

from api.router.errors import RouterError
from api.router.faces.face import Asked, Carriage
from commands.backend_choice import BackendChoice, Name, name_of
from commands.backend_states import Claim
from domain.scope import PublishedModel, Target


@dataclass(slots=True)
class Way:
    """`version` is that of the view the backend was chosen by, `tried` what was asked before it. Its claim has to be ended."""

    asked: Asked
    model: PublishedModel
    claim: Claim
    carriage: Carriage
    version: int
    tried: tuple[Name, ...] = ()
    sticky: bytes | None = None

    @property
    def target(self) -> Target:
        return self.claim.target


class Ways:
    """Finds them. The usual case, a model whose backends speak one protocol, costs one choice and one carriage."""

    def __init__(self, choice: BackendChoice) -> None:
        self._choice = choice

    def first(
        self,
        model: PublishedModel,
        asked: Asked,
        version: int,
        tried: tuple[Name, ...] = (),
        sticky: bytes | None = None,
    ) -> Way:
        """Raises `RouterError`: ``unsupported_parameter`` if no protocol of the model's backends can carry the request, else
        ``overloaded`` or ``no_backend``."""
        barred: set[str] = set()
        cannot: RouterError | None = None
        while (claim := self._choice.claim(model, tried, barred, sticky)) is not None:
            try:
                return Way(asked, model, claim, asked.carriage(claim.target.protocol), version, tried, sticky)
            except RouterError as error:
                claim.released()
                barred.add(claim.target.protocol)
                cannot = error
        if cannot is not None and barred >= {target.protocol for target in model.targets}:
            raise cannot
        if self._choice.overloaded(model):
            raise RouterError("overloaded", f"the backends of {model.id} have as many requests as they may")
        raise RouterError("no_backend", f"no backend of {model.id} can take requests")

    def other(self, way: Way, model: PublishedModel, within: Collection[str], version: int) -> Way | None:
        """The way to another one of the backends `within`, after `way` came to nothing."""
        tried = (*way.tried, name_of(way.target))
        elsewhere = tuple(name_of(target) for target in model.targets if target.backend not in within)
        try:
            found = self.first(model, way.asked, version, (*tried, *elsewhere), way.sticky)
        except RouterError:
            return None
        found.tried = tried
        return found
