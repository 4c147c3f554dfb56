"""What a status says: about the cost of what was asked, and about who is to blame."""

import pytest

from domain.upstream_status import Said, said_by


@pytest.mark.parametrize(
    ("said", "statuses"),
    [
        (Said.SERVED, (200, 201, 204, 299)),
        (Said.PERHAPS, (408, 499, 502, 504, 520, 524, 527)),
        (Said.BROKEN, (301, 401, 403, 500, 501, 503, 507, 528, 529)),
        (Said.BUSY, (402, 429)),
        (Said.NOT_THERE, (404, 405, 410)),
        (Said.CALLERS, (400, 409, 411, 413, 415, 422, 431, 451)),
    ],
)
def test_every_status_says_one_thing(said: Said, statuses: tuple[int, ...]) -> None:
    """Unknown ones cost nothing by the word of whoever answered; only gateways that gave up waiting do not know."""
    assert {said_by(status) for status in statuses} == {said}
