"""The command line tool `curl`."""

import json
import subprocess
import uuid

from checks import BROKE_KEY, KEY, URL, run

CHAT = {"model": "m", "messages": [{"role": "user", "content": "how are you"}], "max_tokens": 5}


def curl(path: str, body: object = None, key: str = KEY, *words: str) -> tuple[int, str]:
    data = [] if body is None else ["-d", json.dumps(body)]
    ran = subprocess.run(
        ["curl", "-sS", "-N", "-w", "\n%{http_code}", "-H", f"Authorization: Bearer {key}", *words, *data, URL + path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    text, _, status = ran.stdout.rpartition("\n")
    return int(status), text


def served(path: str, body: object = None) -> dict:
    status, text = curl(path, body)
    assert status == 200, text
    return json.loads(text)


def chat() -> None:
    assert served("/v1/chat/completions", CHAT)["choices"]


def stream() -> None:
    status, text = curl("/v1/chat/completions", {**CHAT, "stream": True})
    assert status == 200
    assert text.rstrip().endswith("data: [DONE]")


def completions() -> None:
    assert served("/v1/completions", {"model": "m", "prompt": "how are you", "max_tokens": 5})["choices"]


def embeddings() -> None:
    assert served("/v1/embeddings", {"model": "m", "input": "how are you"})["data"]


def responses() -> None:
    assert served("/v1/responses", {"model": "m", "input": "how are you", "max_output_tokens": 16})["output"]


def messages() -> None:
    assert served("/v1/messages", {**CHAT, "model": "claude"})["content"]


def count_tokens() -> None:
    asked = {"model": "claude", "messages": CHAT["messages"]}
    assert served("/v1/messages/count_tokens", asked)["input_tokens"]


def models() -> None:
    assert "m" in [model["id"] for model in served("/v1/models")["data"]]


def timeout() -> None:
    asked = [
        "curl",
        "-sS",
        "-m",
        "0.5",
        "-H",
        f"Authorization: Bearer {KEY}",
        "-d",
        json.dumps({**CHAT, "model": "sleepy"}),
    ]
    assert subprocess.run([*asked, f"{URL}/v1/chat/completions"], capture_output=True, check=False).returncode == 28


def errors() -> None:
    assert curl("/v1/chat/completions", {**CHAT, "model": "none"})[0] == 404
    assert curl("/v1/none", {})[0] == 404
    assert curl("/v1/chat/completions", CHAT, "th_sk_nobody")[0] == 401
    refused = subprocess.run(["curl", "-sS", "-d", "{", f"{URL}/v1/chat/completions"], capture_output=True, check=True)
    assert json.loads(refused.stdout)["error"]["code"] == "invalid_api_key"


def no_retry_402() -> None:
    status, text = curl("/v1/chat/completions", CHAT, BROKE_KEY, "--retry", "2")
    assert (status, json.loads(text)["error"]["code"]) == (402, "insufficient_quota")


def no_retry_409() -> None:
    key = ["-H", f"Idempotency-Key: {uuid.uuid4()}", "--retry", "2"]
    assert curl("/v1/chat/completions", CHAT, KEY, *key)[0] == 200
    assert curl("/v1/chat/completions", CHAT, KEY, *key)[0] == 409


run(
    chat=chat, stream=stream, completions=completions, embeddings=embeddings, responses=responses, messages=messages,
    count_tokens=count_tokens, models=models, timeout=timeout, errors=errors, no_retry_402=no_retry_402,
    no_retry_409=no_retry_409,
)  # fmt: skip
