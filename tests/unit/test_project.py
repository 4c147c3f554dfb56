"""Projects: created, renamed, suspended, reinstated, closed for good."""

from domain import project
from domain.project import (
    ChangeProject,
    CloseProject,
    CreateProject,
    ProjectClosed,
    ProjectCreated,
    ProjectReinstated,
    ProjectRenamed,
    ProjectSuspended,
    ReinstateProject,
    SuspendProject,
)
from tests.unit.decider import given

CREATED = ProjectCreated(name="Main")


def test_a_project_is_created_once() -> None:
    """Its id stays taken."""
    made = given(project).when(CreateProject(name="Main")).then(CREATED)
    made.when(CreateProject(name="Main")).then_refused("already_exists")
    given(project, CREATED, ProjectClosed(reason=None)).when(CreateProject(name="x")).then_refused("already_exists")
    given(project).when(CreateProject(name=" ")).then_refused("invalid_field", "name")


def test_renaming_says_what_was_before() -> None:
    """The same name again changes nothing."""
    renamed = given(project, CREATED).when(ChangeProject(name="New")).then(ProjectRenamed(name="New", before="Main"))
    renamed.when(ChangeProject(name="New")).then_nothing_happened()


def test_suspended_and_reinstated_once() -> None:
    """Repeating either changes nothing."""
    suspended = given(project, CREATED).when(SuspendProject(reason="r")).then(ProjectSuspended(reason="r"))
    suspended.when(SuspendProject()).then_nothing_happened()
    reinstated = suspended.when(ReinstateProject()).then(ProjectReinstated(reason=None))
    reinstated.when(ReinstateProject()).then_nothing_happened()


def test_closed_is_final() -> None:
    """Closing again changes nothing, everything else is refused; what never was is not found."""
    closed = given(project, CREATED).when(CloseProject(reason="done")).then(ProjectClosed(reason="done"))
    assert closed.state.removed
    closed.when(CloseProject()).then_nothing_happened()
    for command in (ChangeProject(name="x"), SuspendProject(), ReinstateProject()):
        closed.when(command).then_refused("project_closed")
        given(project).when(command).then_refused("not_found")
