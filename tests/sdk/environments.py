"""Where the clients live: a virtual environment and a `node_modules` of their own, in `.data/clients`."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.pinned import from_npm, from_pypi, made_once

CLIENTS = Path(__file__).with_name("clients")

_PYTHON, _NODE = CLIENTS / "requirements.txt", CLIENTS / "package.json"


@dataclass(frozen=True, slots=True)
class Client:
    """One client library or tool: how the table names it, and the script that is run."""

    name: str
    script: str

    def command(self, folder: Path) -> list[str]:
        """What runs its checks, given the folder of `installed`."""
        if self.script.endswith(".mjs"):
            return ["node", str(folder / "node" / self.script)]
        return [str(folder / "python" / "bin" / "python"), str(CLIENTS / self.script)]


ALL = (
    Client("openai (Python)", "openai_python.py"),
    Client("anthropic (Python)", "anthropic_python.py"),
    Client("openai (Node)", "openai_node.mjs"),
    Client("anthropic (Node)", "anthropic_node.mjs"),
    Client("LangChain", "langchain_python.py"),
    Client("LiteLLM", "litellm_python.py"),
    Client("llm", "llm_cli.py"),
    Client("curl", "curl_cli.py"),
)


def installed() -> Path:
    """The folder with `python/` (a virtual environment) and `node/` (the scripts beside their packages)."""
    for tool, package in (("node", "nodejs"), ("npm", "npm"), ("curl", "curl")):
        if shutil.which(tool) is None:
            raise RuntimeError(f"{tool} is missing: apt-get install {package}")
    folder = made_once("clients", _PYTHON.read_bytes() + _NODE.read_bytes(), _install)
    for script in CLIENTS.glob("*.mjs"):
        shutil.copy(script, folder / "node" / script.name)
    return folder


def _install(folder: Path) -> None:
    from_npm(folder / "node", _NODE)
    from_pypi(folder / "python", _PYTHON)


def versions() -> dict[str, str]:
    """The version that each client is at, by its name in the table; empty for what comes with the system."""
    python = dict(line.split("==") for line in _PYTHON.read_text().splitlines() if "==" in line)
    node = json.loads(_NODE.read_text())["dependencies"]
    return {
        "openai (Python)": python["openai"],
        "anthropic (Python)": python["anthropic"],
        "openai (Node)": node["openai"],
        "anthropic (Node)": node["@anthropic-ai/sdk"],
        "LangChain": python["langchain-openai"],
        "LiteLLM": python["litellm"],
        "llm": python["llm"],
        "curl": "",
    }
