"""Where the clients live: a virtual environment and a `node_modules` of their own, outside the product's.

They are made once for each set of pinned versions, in `.data/clients`, by the ordinary clients of their registries.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CLIENTS = Path(__file__).with_name("clients")
ROOT = Path(__file__).resolve().parents[2]

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
    pins = _PYTHON.read_bytes() + _NODE.read_bytes() + sys.version.encode()
    folder = ROOT / ".data" / "clients" / hashlib.sha256(pins).hexdigest()[:12]
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _install(folder)
        (folder / "ready").touch()
    for script in CLIENTS.glob("*.mjs"):
        shutil.copy(script, folder / "node" / script.name)
    return folder


def _install(folder: Path) -> None:
    node = folder / "node"
    node.mkdir(parents=True)
    shutil.copy(_NODE, node / "package.json")
    _run("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent", cwd=node)
    _run(sys.executable, "-m", "venv", str(folder / "python"), cwd=folder)
    pip = [str(folder / "python" / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(*pip, "-r", str(_PYTHON), cwd=folder)


def _run(*command: str, cwd: Path) -> None:
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} failed: {ran.stderr[-2000:]}")


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
