"""The account that servers run under when we are root: PostgreSQL refuses to be root, and nothing else needs to be."""

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from domain.errors import Unavailable
from infra.stack.process import ENVIRONMENT, which

_NAMES = ("postgres", "nobody")
_TRAVERSE = 0o001

_CAPABILITIES = {"dac_read_search": 1 << 2, "dac_override": 1 << 1}
"""What lets an account through closed folders, the least first; containers often have only the second."""


@dataclass(frozen=True)
class Account:
    """`uid` and `gid` to change to; None: we are no root, and stay who we are."""

    ids: tuple[int, int] | None

    def own(self, path: Path) -> None:
        """Gives a file or a folder to the account."""
        if self.ids is not None:
            os.chown(path, *self.ids)

    def command(self, command: Sequence[str], *reached: Path) -> list[str]:
        """`command` as one that becomes the account first. `reached`: absolute paths it must get at, also where a folder above
        them is closed to others, as root's home is."""
        if self.ids is None:
            return list(command)
        setpriv = which("setpriv")
        if setpriv is None:
            raise Unavailable("setpriv is missing: apt-get install util-linux", code="missing_dependency")
        uid, gid = self.ids
        become = [str(setpriv), f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
        if any(not folder.stat().st_mode & _TRAVERSE for path in reached for folder in path.parents):
            become += [f"--{kind}-caps=+{_capability()}" for kind in ("inh", "ambient")]
        return [*become, "--", *command]

    def run(self, command: Sequence[str], *reached: Path) -> None:
        """Runs a command to its end as the account. Raises `Unavailable` with what it said, if it fails."""
        ran = subprocess.run(
            self.command(command, *reached),
            env=ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if ran.returncode:
            said = " ".join(ran.stdout.split()[-60:])
            raise Unavailable(f"{Path(command[0]).name} failed: {said}", code="stack_failed")


def _capability() -> str:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    have = int(status["CapEff"], 16)
    return next((name for name, bit in _CAPABILITIES.items() if have & bit), "dac_override")


def unprivileged(folder: Path) -> Account:
    """The account for a server that keeps its data in `folder`: the owner of what is there, else a system account."""
    if os.geteuid() != 0:
        return Account(None)
    if folder.exists() and (owner := folder.stat()).st_uid != 0:
        return Account((owner.st_uid, owner.st_gid))
    for name in _NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account((entry.pw_uid, entry.pw_gid))
    raise Unavailable("no account to run PostgreSQL as: adduser --system postgres", code="missing_dependency")
