"""Imports without a search for cycles."""

import gc
from importlib import import_module

import pytest

from cli.loading import loading


def load(module: str) -> None:
    with loading():
        assert not gc.isenabled()
        import_module(module)


def test_the_search_for_cycles_goes_on_behind_it() -> None:
    """Also when a module cannot be imported; and what was made meanwhile is left out of it for good."""
    frozen = gc.get_freeze_count()
    with pytest.raises(ImportError):
        load("no_such_module")
    assert gc.isenabled()
    assert gc.get_freeze_count() > frozen
    gc.unfreeze()
