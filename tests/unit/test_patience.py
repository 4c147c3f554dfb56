"""How long a backend may take and be silent, looked at by a clock of the test's own."""

from infra.adapters.patience import Patience


def begun(timeout: float = 100.0, first_byte: float | None = 10.0, idle: float | None = 5.0) -> Patience:
    patience = Patience()
    patience.begin(0.0, timeout, first_byte, idle)
    return patience


def over(patience: Patience, now: float, *, held_up: bool = False) -> bool:
    return patience.over(now, held_up=held_up) is not None


def test_the_first_byte_has_its_own_time() -> None:
    """Before it, how long a silence may be says nothing."""
    patience = begun()
    assert not over(patience, 9.9)
    assert over(patience, 10.1)


def test_after_each_byte_the_silence_begins_anew() -> None:
    """By the moment at which somebody looked: never shorter than was said."""
    patience = begun()
    for now in (3.0, 7.9, 12.8, 17.7):
        patience.heard = True
        assert not over(patience, now)
    assert not over(patience, 22.6)
    assert over(patience, 22.8)


def test_what_is_not_taken_is_no_silence() -> None:
    """A slow reader's own time does not count against the backend."""
    patience = begun()
    patience.heard = True
    assert not over(patience, 1.0)
    assert not over(patience, 50.0, held_up=True)
    assert not over(patience, 54.9)
    assert over(patience, 55.1)


def test_the_whole_has_its_time_whatever_comes() -> None:
    """Also where it is never silent, and where nothing is taken."""
    patience = begun(first_byte=None)
    patience.heard = True
    assert over(patience, 100.1)
    assert over(begun(), 100.1, held_up=True)


def test_no_bound_is_none() -> None:
    """But that of the whole."""
    patience = begun(1e9, None, None)
    assert not over(patience, 1e8)
    patience.heard = True
    assert not over(patience, 2e8)
    assert not over(patience, 9e8)


def test_an_exchange_knows_nothing_of_the_one_before() -> None:
    """On the same connection."""
    patience = begun()
    patience.heard = True
    patience.begin(50.0, 100.0, 10.0, 5.0)
    assert not over(patience, 59.9)
    assert over(patience, 60.1)
