"""The peers: LiteLLM's proxy and TensorZero's gateway from PyPI, Portkey's gateway from npm, each with no server beside it.

They run with an environment of almost nothing: no secret of whoever runs the bench is in it.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from tests.bench.backends import Backends
from tests.bench.calls import GATEWAY, MODEL, STREAM_MODEL, bearer, plain, streamed
from tests.bench.processes import free_port, process, wait_for
from tests.bench.targets import Target
from tests.pinned import from_npm, from_pypi, made_once

_HERE = Path(__file__).parent
_PATIENCE = 180.0
_MASTER = "sk-bench-master"


def versions() -> Mapping[str, str]:
    """The pinned version of each peer."""
    node = json.loads((_HERE / "package.json").read_text())["dependencies"]
    pinned = [
        (_HERE / f"requirements-{name}.txt").read_text().strip().split("==")[1] for name in ("litellm", "tensorzero")
    ]
    return {"LiteLLM": pinned[0], "TensorZero": pinned[1], "Portkey": node["@portkey-ai/gateway"]}


def _from_pypi(name: str) -> Path:
    requirements = _HERE / f"requirements-{name}.txt"
    return made_once("peers", requirements.read_bytes(), lambda folder: from_pypi(folder, requirements)) / "bin"


@contextmanager
def litellm(folder: Path, backends: Backends, tier: str) -> Iterator[Target]:
    """T0 without a key, T1 with its master key, T2 with a budget too, the provider's: that of a key or team needs PostgreSQL."""
    programs, port, config = _from_pypi("litellm"), free_port(), folder / f"litellm-{tier}.json"
    models = [
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_base": f"{url}/v1", "api_key": "none"}}
        for name, url in ((MODEL, backends.plain), (STREAM_MODEL, backends.streaming))
    ]
    budget = {"provider_budget_config": {"openai": {"budget_limit": 9_000_000, "time_period": "30d"}}}
    settings = {
        "model_list": models,
        "litellm_settings": {"telemetry": False, "num_retries": 0},
        "general_settings": {"master_key": _MASTER}
        if tier != "T0"
        else {"dangerously_permit_weak_or_unset_master_key": True},
        "router_settings": budget if tier == "T2" else {},
    }
    config.write_text(json.dumps(settings))  # JSON is YAML
    local = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    command = [str(programs / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    log, url = folder / f"litellm-{tier}.log", f"http://127.0.0.1:{port}"
    with process(command, GATEWAY, log, _environ(folder, **local)) as child:
        wait_for(f"{url}/health/liveliness", log, _PATIENCE)
        path, headers = f"{url}/v1/chat/completions", bearer(_MASTER) if tier != "T0" else {}
        yield Target("LiteLLM", tier, child.pid, plain(path, headers), streamed(path, headers), backends.direct)


@contextmanager
def tensorzero(folder: Path, backends: Backends) -> Iterator[Target]:
    """T0. Its keys, rate limits and records need PostgreSQL, Valkey or ClickHouse."""
    programs, config, log = _from_pypi("tensorzero"), folder / "tensorzero.toml", folder / "tensorzero.log"
    lines = ["[gateway]", f'bind_address = "127.0.0.1:{free_port()}"', "observability.enabled = false"]
    for name, url in ((MODEL, backends.plain), (STREAM_MODEL, backends.streaming)):
        lines += [f"[models.{name}]", 'routing = ["it"]', f"[models.{name}.providers.it]", 'type = "openai"']
        lines += [f'model_name = "{name}"', f'api_base = "{url}/v1/"', 'api_key_location = "none"']
    config.write_text("\n".join(lines))
    command = [str(programs / "python"), str(_HERE / "start_tensorzero.py"), str(config)]
    with process(command, GATEWAY, log, _environ(folder)) as child:
        path = f"{_ready(log).rstrip('/')}/chat/completions"
        names = [f"tensorzero::model_name::{name}" for name in (MODEL, STREAM_MODEL)]
        yield Target(
            "TensorZero", "T0", child.pid, plain(path, {}, names[0]), streamed(path, {}, names[1]), backends.direct
        )


@contextmanager
def portkey(folder: Path, backends: Backends) -> Iterator[Target]:
    """T0. Keys, budgets and records are of its hosted product."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        sys.exit("node and npm are missing: apt-get install nodejs npm")
    package = _HERE / "package.json"
    modules = made_once("peers", package.read_bytes(), lambda made: from_npm(made / "node", package)) / "node"
    start, port, log = "node_modules/@portkey-ai/gateway/build/start-server.js", free_port(), folder / "portkey.log"
    command = ["node", str(modules / start), f"--port={port}", "--headless"]
    with process(command, GATEWAY, log, _environ(folder)) as child:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, log, _PATIENCE)
        path, headers = f"{url}/v1/chat/completions", {"x-portkey-provider": "openai"}
        hosts = [{**headers, "x-portkey-custom-host": f"{base}/v1"} for base in (backends.plain, backends.streaming)]
        yield Target("Portkey", "T0", child.pid, plain(path, hosts[0]), streamed(path, hosts[1]), backends.direct)


def _environ(folder: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "NODE_ENV": "production", **more}


def _ready(log: Path) -> str:
    """The URL in a log's line ``ready URL``."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if line.startswith("ready "):
                return line.split()[1]
        time.sleep(0.05)
    raise RuntimeError(f"not ready:\n{log.read_text()[-3000:]}")


ALL: Sequence[Callable[[Path, Backends], AbstractContextManager[Target]]] = (
    portkey,
    tensorzero,
    *(partial(litellm, tier=tier) for tier in ("T0", "T1", "T2")),
)
"""Each peer, in each tier that it has."""
