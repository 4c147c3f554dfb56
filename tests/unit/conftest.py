"""Fixtures of the unit tests."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fake_api import FakeApi, fake_api


@dataclass
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A server of canned answers."""
    with fake_api() as server:
        yield server


@pytest.fixture
def cli(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command line in this process, in an empty folder, against `api`."""
    for name in [name for name in os.environ if name.startswith("TOLLHOUSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOLLHOUSE_URL", api.url)
    monkeypatch.setenv("TOLLHOUSE_ADMIN_KEY", "th_ak_test")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, stdin: str = "") -> Ran:
        from cli.main import main

        monkeypatch.setattr(sys, "argv", ["tollhouse", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Ran(ended.value.code if isinstance(ended.value.code, int) else 0, out, err)

    return run
