"""Exit codes of the command line, and the one place where errors become them.

0 ok   1 error   2 usage   3 not found   4 auth   5 conflict   6 check failed
"""

from domain.errors import Conflict, Forbidden, Invalid, NotFound, TollhouseError, Unauthenticated

OK, ERROR, USAGE, NOT_FOUND, AUTH, CONFLICT, CHECK_FAILED = range(7)

_CODES: tuple[tuple[type[TollhouseError], int], ...] = (
    (Invalid, USAGE),
    (NotFound, NOT_FOUND),
    (Unauthenticated, AUTH),
    (Forbidden, AUTH),
    (Conflict, CONFLICT),
)


class CheckFailed(TollhouseError):
    """A comparison that was asked for came out unequal."""

    code = "check_failed"


def exit_code(error: TollhouseError) -> int:
    """The exit code of an error; 1 for every kind that has none of its own."""
    if isinstance(error, CheckFailed):
        return CHECK_FAILED
    return next((code for kind, code in _CODES if isinstance(error, kind)), ERROR)
