"""Other people's packages that tests and benches run: in environments of their own, outside the product's.

Each is made once for its pinned versions, under `.data`, by the ordinary clients of the registries; after that no registry is
asked.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def made_once(kind: str, pins: bytes, install: Callable[[Path], None]) -> Path:
    """The folder that `install` filled for these `pins`, now or earlier; a half-filled one is begun anew."""
    folder = ROOT / ".data" / kind / hashlib.sha256(pins + sys.version.encode()).hexdigest()[:12]
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        install(folder)
        (folder / "ready").touch()
    return folder


def from_pypi(folder: Path, requirements: Path) -> None:
    """A virtual environment at `folder` with what `requirements` names."""
    _run(sys.executable, "-m", "venv", str(folder), cwd=folder.parent)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(*pip, "-r", str(requirements), cwd=folder)


def from_npm(folder: Path, package: Path) -> None:
    """`node_modules` in `folder` with what the `package` file names."""
    folder.mkdir(parents=True)
    shutil.copy(package, folder / "package.json")
    _run("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent", cwd=folder)


def _run(*command: str, cwd: Path) -> None:
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} failed: {ran.stderr[-2000:]}")
