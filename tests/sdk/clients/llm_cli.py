"""The command line tool `llm`, told of the models in its `extra-openai-models.yaml`."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from checks import BROKE_KEY, KEY, URL, run

MODELS = "".join(
    f'- {{model_id: "{name}", model_name: "{model}", api_base: "{URL}/v1", api_key_name: "{key}", supports_schema: true}}\n'
    for name, model, key in (("th", "m", "th"), ("th-broke", "m", "broke"), ("th-none", "none", "th"))
)


def llm(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(Path(sys.executable).with_name("llm")), *words],
        env={**os.environ, "LLM_USER_PATH": folder},
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def said(*words: str) -> str:
    ran = llm(*words)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()
    return ran.stdout


def chat() -> None:
    said("-m", "th", "--no-stream", "how are you")


def stream() -> None:
    said("-m", "th", "how are you")


def structured() -> None:
    assert '"name"' in said("-m", "th", "--schema", "name, age int", "how are you")


def errors() -> None:
    ran = llm("-m", "th-none", "how are you")
    assert ran.returncode
    assert "404" in ran.stderr, ran.stderr


def no_retry_402() -> None:
    ran = llm("-m", "th-broke", "how are you")
    assert ran.returncode
    assert "402" in ran.stderr, ran.stderr


with tempfile.TemporaryDirectory() as folder:
    Path(folder, "extra-openai-models.yaml").write_text(MODELS)
    Path(folder, "keys.json").write_text(f'{{"th": "{KEY}", "broke": "{BROKE_KEY}"}}')
    run(chat=chat, stream=stream, structured=structured, errors=errors, no_retry_402=no_retry_402)
