"""The README's commands do what it says, in the order it says, on a machine that has only this checkout."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def blocks(heading: str) -> list[str]:
    """The fenced blocks of a section, in order."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```\n(.*?)```", section, re.DOTALL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: str, env: dict[str, str], folder: Path) -> Iterator[None]:
    """A server of the README, until the test ends; ready when it says so."""
    with (folder / f"{abs(hash(command))}.log").open("wb") as log:
        child = subprocess.Popen(
            command.split(), cwd=folder, env=env, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
    assert child.stdout is not None
    try:
        while not (line := child.stdout.readline()).startswith("ready "):
            assert line, f"{command} ended without being ready"
        yield
    finally:
        child.terminate()
        assert child.wait(30) == 0
        child.stdout.close()


def test_every_command_of_the_walk_through_works(tmp_path: Path) -> None:
    """From two servers to a verified projection, exactly as written but for ports and folders."""
    servers, setup, call, look = blocks("Try it by hand")
    gateway, hello = free_port(), free_port()
    env = {k: v for k, v in os.environ.items() if not k.startswith("TOLLHOUSE_")}
    env["TOLLHOUSE_DATA"] = str(tmp_path / "tollhouse-data")

    def here(text: str) -> str:
        text = text.replace(".venv/bin/", f"{BIN}/").replace("127.0.0.1:8080", f"127.0.0.1:{gateway}")
        return text.replace("127.0.0.1:8081", f"127.0.0.1:{hello}")

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    with ExitStack() as stack:
        for line in here(servers).splitlines():
            stack.enter_context(running(line, env, tmp_path))
        for line in here(setup).splitlines():
            printed = run(line)
        secret = re.search(r"th_sk_\w+", printed)
        assert secret is not None, printed
        env["SECRET"] = secret.group()
        answer = json.loads(run(here(call).replace("curl ", "curl -sS --fail-with-body ")))
        assert answer["choices"][0]["message"]["content"]
        budgets, requests, verified = [run(line) for line in here(look).splitlines()]
        assert "daily" in budgets
        assert "completed" in requests
        assert "balances" in verified


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:tests|docs)/[\w./-]+)`", README))))
def test_every_file_that_is_named_exists(path: str) -> None:
    """A document shows what exists."""
    assert (ROOT / path).exists()


def test_both_commands_at_the_top_are_targets() -> None:
    """`make demo` and `make test` exist, with the other public verbs."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "check", "bench", "faults", "serve"} <= targets
