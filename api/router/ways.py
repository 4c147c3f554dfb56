"""The way of a request to a backend: which one was claimed for it, and how it is carried there."""

from collections.abc import Collection
from dataclasses import dataclass

from api.router.errors import RouterError
from api.router.faces.face import Asked, Carriage
from commands.backend_choice import BackendChoice, Claim, Name, name_of
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

    @property
    def target(self) -> Target:
        return self.claim.target


class Ways:
    """Finds them. The usual case, a model whose backends speak one protocol, costs one choice and one carriage."""

    def __init__(self, choice: BackendChoice) -> None:
        self._choice = choice

    def first(self, model: PublishedModel, asked: Asked, version: int, tried: tuple[Name, ...] = ()) -> Way:
        """Raises `RouterError`: ``unsupported_parameter`` if no protocol of the model's backends can carry the request, else
        ``no_backend``."""
        barred: set[str] = set()
        cannot: RouterError | None = None
        while (claim := self._choice.claim(model, tried, barred)) is not None:
            try:
                return Way(asked, model, claim, asked.carriage(claim.target.protocol), version, tried)
            except RouterError as error:
                claim.released()
                barred.add(claim.target.protocol)
                cannot = error
        if cannot is not None and barred >= {target.protocol for target in model.targets}:
            raise cannot
        raise RouterError("no_backend", f"no backend of {model.id} can take requests")

    def other(self, way: Way, model: PublishedModel, within: Collection[str], version: int) -> Way | None:
        """The way to another one of the backends `within`, after `way` came to nothing."""
        tried = (*way.tried, name_of(way.target))
        elsewhere = tuple(name_of(target) for target in model.targets if target.backend not in within)
        try:
            found = self.first(model, way.asked, version, (*tried, *elsewhere))
        except RouterError:
            return None
        found.tried = tried
        return found
