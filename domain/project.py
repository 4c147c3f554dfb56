"""Projects: parts of an organization that keys belong to and budgets can limit."""

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from domain.errors import Conflict, NotFound
from domain.inputs import display_name, reason_text
from domain.limits import UNLIMITED, Limits, checked

KIND = "project"


# ---------------------------------------------------------------- events: stored format


class ProjectCreated(Struct, frozen=True, kw_only=True):
    name: str


class ProjectRenamed(Struct, frozen=True, kw_only=True):
    name: str
    before: str


class ProjectLimitsChanged(Struct, frozen=True, kw_only=True):
    limits: Limits
    before: Limits


class ProjectSuspended(Struct, frozen=True, kw_only=True):
    reason: str | None


class ProjectReinstated(Struct, frozen=True, kw_only=True):
    reason: str | None


class ProjectClosed(Struct, frozen=True, kw_only=True):
    reason: str | None


Event = ProjectCreated | ProjectRenamed | ProjectLimitsChanged | ProjectSuspended | ProjectReinstated | ProjectClosed

EVENTS: tuple[type[Struct], ...] = (
    ProjectCreated,
    ProjectRenamed,
    ProjectLimitsChanged,
    ProjectSuspended,
    ProjectReinstated,
    ProjectClosed,
)


# ---------------------------------------------------------------- state


class Project(Struct, frozen=True, kw_only=True):
    name: str
    limits: Limits = UNLIMITED
    status: Literal["active", "suspended", "closed"] = "active"

    @property
    def removed(self) -> bool:
        """Closed for good: its id is never used again in the organization."""
        return self.status == "closed"


def evolve(state: Project | None, event: Event) -> Project | None:
    """The state after `event`."""
    if isinstance(event, ProjectCreated):
        return Project(name=event.name)
    if state is None:
        return None
    match event:
        case ProjectRenamed():
            return replace(state, name=event.name)
        case ProjectLimitsChanged():
            return replace(state, limits=event.limits)
        case ProjectSuspended():
            return replace(state, status="suspended")
        case ProjectReinstated():
            return replace(state, status="active")
        case ProjectClosed():
            return replace(state, status="closed")


# ---------------------------------------------------------------- commands and decisions


class CreateProject(Struct, frozen=True, kw_only=True):
    name: str
    limits: Limits = UNLIMITED


class ChangeProject(Struct, frozen=True, kw_only=True):
    """None leaves a field as it is."""

    name: str | None = None
    limits: Limits | None = None


class SuspendProject(Struct, frozen=True, kw_only=True):
    reason: str | None = None


class ReinstateProject(Struct, frozen=True, kw_only=True):
    reason: str | None = None


class CloseProject(Struct, frozen=True, kw_only=True):
    reason: str | None = None


Command = CreateProject | ChangeProject | SuspendProject | ReinstateProject | CloseProject


def decide(command: Command, state: Project | None) -> list[Event]:
    """The events of `command`; none if it is so already.

    Raises `Conflict` (``already_exists``, ``project_closed``), `NotFound`, `Invalid`.
    """
    if isinstance(command, CreateProject):
        if state is not None:
            raise Conflict("a project with this id exists, or existed, in the organization", code="already_exists")
        return [ProjectCreated(name=display_name(command.name)), *_limited(command.limits, UNLIMITED)]
    if state is None:
        raise NotFound("no such project")
    if isinstance(command, CloseProject):
        return [] if state.removed else [ProjectClosed(reason=reason_text(command.reason))]
    if state.removed:
        raise Conflict("the project is closed", code="project_closed")
    match command:
        case ChangeProject():
            return _changed(command, state)
        case SuspendProject():
            return [] if state.status == "suspended" else [ProjectSuspended(reason=reason_text(command.reason))]
        case ReinstateProject():
            return [] if state.status == "active" else [ProjectReinstated(reason=reason_text(command.reason))]


def _changed(command: ChangeProject, state: Project) -> list[Event]:
    events: list[Event] = []
    if command.name is not None and command.name != state.name:
        events.append(ProjectRenamed(name=display_name(command.name), before=state.name))
    return events + _limited(state.limits if command.limits is None else command.limits, state.limits)


def _limited(limits: Limits, before: Limits) -> list[Event]:
    return [] if limits == before else [ProjectLimitsChanged(limits=checked(limits), before=before)]
