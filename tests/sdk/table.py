"""The table of `docs/clients.md`: what was seen to work with which client. `python -m tests.sdk.table` writes it after a
run in which everything was well."""

import subprocess
import sys
from collections.abc import Mapping, Set

from tests.pinned import ROOT
from tests.sdk.environments import ALL, CLIENTS, Client, versions

DOCUMENT = ROOT / "docs" / "clients.md"
CHECKS = (
    "chat", "stream", "tools", "structured", "completions", "embeddings", "responses", "messages", "count_tokens", "models",
    "timeout", "errors", "no_retry_402", "no_retry_409", "retry_429",
)  # fmt: skip
"""Every check that a client may have, in the order of the table's rows."""

_BEGIN, _END = "<!-- table -->\n", "<!-- end of table -->\n"


def checks_of(client: Client) -> Set[str]:
    """The checks that a client's script has, from its last call of `run`. Raises `AssertionError` for one that has no row."""
    text = (CLIENTS / client.script).read_text()
    if client.script.endswith(".mjs"):
        found = {line.partition("(")[0].split()[-1] for line in text.splitlines() if line.startswith("  async ")}
    else:
        found = {word.partition("=")[0] for word in text.rpartition("run(")[2].replace(")", " ").split() if "=" in word}
    assert found and found <= set(CHECKS), found - set(CHECKS)
    return found


def table(at: Mapping[str, str]) -> str:
    """The checks of each client; `at`: the clients' versions."""
    names = [client.name for client in ALL]
    seen = {client.name: checks_of(client) for client in ALL}
    lines = [
        "| | " + " | ".join(f"{name} {at[name]}".rstrip() for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(
            "| " + " | ".join([check, *("yes" if check in seen[name] else "" for name in names)]) + " |"
            for check in CHECKS
        ),
    ]
    return "\n".join(lines) + "\n"


def written() -> str:
    """The table as the document has it."""
    return DOCUMENT.read_text().partition(_BEGIN)[2].partition(_END)[0]


def write(text: str) -> None:
    """Puts `text` in the place of the document's table."""
    before, _, rest = DOCUMENT.read_text().partition(_BEGIN)
    DOCUMENT.write_text(before + _BEGIN + text + _END + rest.partition(_END)[2])


def main() -> int:
    """Runs the suite (but for the comparison with the table), and writes the table if it was green."""
    command = [sys.executable, "-m", "pytest", "tests/sdk", "-k", "every_check"]
    ran = subprocess.run(command, cwd=ROOT, check=False)
    if not ran.returncode:
        write(table(versions()))
    return ran.returncode


if __name__ == "__main__":
    sys.exit(main())
