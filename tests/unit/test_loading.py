"""Imports without a search for cycles."""

import gc

import pytest

from cli.loading import loading


def test_the_search_for_cycles_goes_on_behind_it() -> None:
    """Also when a module cannot be imported; and what was made meanwhile is left out of it for good."""
    with pytest.raises(ImportError), loading():
        assert not gc.isenabled()
        frozen = gc.get_freeze_count()
        raise ImportError
    assert gc.isenabled()
    assert gc.get_freeze_count() > frozen
    gc.unfreeze()
