"""ClickHouse: the server on the PATH if it is recent enough, else an HTTP front over the engine in process (chDB), which the
client cannot tell from a server. What was acknowledged is there again after kill -9 of either."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path

import msgspec

from infra.stack.ports import HOST
from infra.stack.process import which
from infra.stack.server import PROBE_SECONDS, missing

INSTALL = "pip install tollhouse, which brings chdb-core, or install a ClickHouse server"

USER = "tollhouse"
DATABASE = "tollhouse"

LEAST = (25, 3)
"""The oldest server that is used: the client's own test matrix begins there."""

FRONT = "infra.stack.clickhouse_front"

_ROOT = Path(__file__).parents[2]
_VERSION = re.compile(r"version (\d+)\.(\d+)")
_CONFIG = """<clickhouse>
  <logger><level>warning</level><console>1</console></logger>
  <listen_host>{host}</listen_host>
  <http_port>{port}</http_port>
  <path>{folder}/</path>
  <tmp_path>{folder}/tmp/</tmp_path>
  <user_files_path>{folder}/user_files/</user_files_path>
  <format_schema_path>{folder}/format_schemas/</format_schema_path>
  <timezone>UTC</timezone>
  <mark_cache_size>67108864</mark_cache_size>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users>
    <{user}>
      <password>{password}</password>
      <networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
    </{user}>
  </users>
</clickhouse>
"""


@dataclass(frozen=True)
class ClickHouse:
    """A server on `port` with its folder at `home`."""

    home: Path
    port: int
    password: str
    name: str = "clickhouse"
    stop_signal: int = signal.SIGTERM

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port,)

    @property
    def url(self) -> str:
        """What TOLLHOUSE_CLICKHOUSE takes."""
        return f"http://{USER}:{self.password}@{HOST}:{self.port}/{DATABASE}"

    @property
    def work(self) -> Path:
        return self.home / "data"

    @cached_property
    def server(self) -> tuple[str, ...] | None:
        """What starts a server of its own, if there is one that is recent enough."""
        for name, rest in (("clickhouse-server", ()), ("clickhouse", ("server",))):
            program = which(name)
            if program is not None and _version(program, *rest) >= LEAST:
                return (str(program), *rest)
        return None

    @cached_property
    def program(self) -> Path | None:
        if self.server is not None:
            return Path(self.server[0])
        return Path(sys.executable) if find_spec("chdb") is not None else None

    def prepare(self) -> None:
        if self.program is None:
            raise missing("ClickHouse", INSTALL)
        self.work.mkdir(parents=True, exist_ok=True)
        if self.server is not None:
            known = {"host": HOST, "port": self.port, "folder": escape(str(self.work)), "user": USER}
            _write(self._config, _CONFIG.format(**known, password=escape(self.password)).encode())
        else:
            own = {"port": self.port, "folder": str(self.work), "user": USER, "password": self.password}
            _write(self._config, msgspec.json.encode(own))

    def command(self) -> Sequence[str]:
        change = which("env")
        assert change is not None, "env is a part of every system"
        if self.server is not None:
            return [str(change), f"--chdir={self.work}", *self.server, f"--config-file={self._config}"]
        return [str(change), f"--chdir={_ROOT}", sys.executable, "-m", FRONT, str(self._config)]

    def awaited(self, running: Collection[str]) -> str | None:
        del running
        connection = HTTPConnection(HOST, self.port, timeout=PROBE_SECONDS)
        try:
            headers = {"X-ClickHouse-User": USER, "X-ClickHouse-Key": self.password}
            connection.request("POST", "/", f"CREATE DATABASE IF NOT EXISTS {DATABASE}", headers)
            answer = connection.getresponse()
            said = answer.read(200)
        except (OSError, HTTPException) as error:
            return f"an answer to a query: {error}"
        finally:
            connection.close()
        return None if answer.status == 200 else f"its database: {said.decode(errors='replace').strip()}"

    @property
    def _config(self) -> Path:
        return self.home / ("config.xml" if self.server is not None else "front.json")


def _write(path: Path, content: bytes) -> None:
    """Only its owner may read it: there is a password in it."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def _version(program: Path, *words: str) -> tuple[int, int]:
    ran = subprocess.run([str(program), *words, "--version"], capture_output=True, text=True, check=False)
    found = _VERSION.search(ran.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)
