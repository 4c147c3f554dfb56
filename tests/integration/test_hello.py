"""Hello: exact usage in every shape, a journal line before the last byte, and what it does when told to misbehave."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai import OpenAI

from infra.adapters.load_client import Load, LoadClient, LoadResult, Outcome
from infra.adapters.trace_file import TraceRow, chat_body

START = "from cli.main import main; main()"


@contextmanager
def hello(*options: str) -> Iterator[str]:
    """A Hello process; its URL. It must end with 0 when told to stop."""
    process = subprocess.Popen(
        [sys.executable, "-c", START, "hello", "--listen", "127.0.0.1:0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        ready = process.stdout.readline().split()
        assert ready[:1] == ["ready"], process.stderr and process.stderr.read()
        yield ready[1]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0
        assert errors == ""
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """One Hello with a journal for all tests that only ask."""
    journal = tmp_path_factory.mktemp("hello") / "journal"
    with hello("--journal", str(journal)) as url:
        yield url, journal


@contextmanager
def openai(url: str) -> Iterator[Any]:
    """The official client. Its overloads do not take options from a table: hence Any."""
    with OpenAI(base_url=f"{url}/v1", api_key="x") as client:
        yield client


def until(condition: Callable[[], bool]) -> None:
    """Polls until `condition` holds, for at most 20 seconds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)


def lines(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text().splitlines()]


def ask(url: str, path: str, body: Any, request_id: str = "req_1") -> tuple[int, str]:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"content-type": "application/json", "x-request-id": request_id})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.headers["x-request-id"] == request_id
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


MESSAGES = [{"role": "user", "content": "one two  three"}]


@pytest.mark.parametrize(("caps", "tokens"), [({"max_completion_tokens": 5}, 5), ({"max_tokens": 7}, 7), ({}, 16)])
def test_a_chat_has_as_many_tokens_as_its_cap(served: tuple[str, Path], caps: dict[str, int], tokens: int) -> None:
    """Prompt tokens are words, completion tokens the cap or 16, in the text, the usage and the journal alike."""
    url, journal = served
    with openai(url) as client:
        answer = client.chat.completions.create(
            model="m",
            messages=MESSAGES,
            extra_headers={"x-request-id": "req_7.2"},
            **caps,
        )
    assert answer.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 3,
        "completion_tokens": tokens,
        "total_tokens": 3 + tokens,
    }
    assert len(answer.choices[0].message.content.split()) == tokens
    last = lines(journal)[-1]
    assert last.pop("time").endswith("Z")
    assert last == {
        "request_id": "req_7.2",
        "model": "m",
        "prompt_tokens": 3,
        "completion_tokens": tokens,
        "stream": False,
        "state": "served",
    }


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_tells_its_usage_only_if_asked(served: tuple[str, Path], usage: bool) -> None:
    """45 tokens come in chunks of up to 20; the last chunk has the usage, and no other has."""
    url, journal = served
    with openai(url) as client:
        options: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
        stream = client.chat.completions.create(
            model="m",
            messages=MESSAGES,
            max_completion_tokens=45,
            stream=True,
            **options,
        )
        chunks = list(stream)
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert [len(text.split()) for text in texts] == [20, 20, 5]
    told = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage is not None]
    assert told == ([45] if usage else [])
    assert chunks[-1].choices == [] if usage else chunks[-1].choices[0].finish_reason == "length"
    assert (lines(journal)[-1]["completion_tokens"], lines(journal)[-1]["stream"]) == (45, True)


def test_usage_can_be_told_with_every_chunk(served: tuple[str, Path]) -> None:
    """With continuous_usage_stats each chunk has what was produced so far, so a cut stream has an exact figure."""
    url, _ = served
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"model": "m", "messages": MESSAGES, "max_tokens": 45, "stream": True, "stream_options": options}
    _, text = ask(url, "/v1/chat/completions", body)
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [0, 20, 40, 45, 45, 45]


def test_several_choices_are_all_produced(served: tuple[str, Path]) -> None:
    """n choices of the cap each."""
    url, _ = served
    body = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "a b"}]}]}
    _, text = ask(url, "/v1/chat/completions", {**body, "n": 3, "max_tokens": 4})
    answer = json.loads(text)
    assert (len(answer["choices"]), answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (
        3,
        2,
        12,
    )


def test_the_other_endpoints_count_the_same_way(served: tuple[str, Path]) -> None:
    """Completions, embeddings (which the SDK decodes from base64), models, and Anthropic's token count."""
    url, journal = served
    with openai(url) as client:
        text = client.completions.create(model="m", prompt="a b", max_tokens=4)
        assert (text.usage.prompt_tokens, text.usage.completion_tokens) == (2, 4)
        vectors = client.embeddings.create(model="e", input=["a b", "c"])
        assert vectors.usage.prompt_tokens == 3
        assert [item.embedding for item in vectors.data] == [[1.0, 0.0, 0.0, 0.0]] * 2
        assert (lines(journal)[-1]["prompt_tokens"], lines(journal)[-1]["completion_tokens"]) == (3, 0)
        assert [model.id for model in client.models.list()] == ["hello"]
    count = {"model": "m", "system": "be kind", "messages": MESSAGES}
    request = urllib.request.Request(f"{url}/v1/messages/count_tokens", json.dumps(count).encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert json.load(answer) == {"input_tokens": 5}


def test_anthropic_messages_plain_and_streamed(served: tuple[str, Path]) -> None:
    """The same figures in Anthropic's events; the journal has both."""
    url, journal = served
    body = {"model": "c", "max_tokens": 25, "system": "be kind", "messages": MESSAGES}
    _, text = ask(url, "/v1/messages", body)
    plain = json.loads(text)
    assert (plain["usage"]["input_tokens"], plain["usage"]["output_tokens"]) == (5, 25)
    _, text = ask(url, "/v1/messages", {**body, "stream": True})
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    names = [line[7:] for line in text.splitlines() if line.startswith("event: ")]
    assert names == [event["type"] for event in events]
    assert names == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"]["usage"]["input_tokens"] == 5
    assert events[-2]["usage"]["output_tokens"] == 25
    assert [line["completion_tokens"] for line in lines(journal)[-2:]] == [25, 25]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/chat/completions", {"model": "m"}, 400),
        ("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "max_tokens": 0}, 400),
        ("/v1/messages", {"model": "m", "messages": MESSAGES}, 400),
        ("/v1/nothing", {}, 404),
    ],
)
def test_what_it_refuses_is_not_in_the_journal(served: tuple[str, Path], path: str, body: Any, status: int) -> None:
    """An error object in the protocol's own shape, and no line."""
    url, journal = served
    before = journal.read_bytes() if journal.exists() else b""
    answered, text = ask(url, path, body)
    assert answered == status
    assert json.loads(text)["error"]["message"]
    assert (journal.read_bytes() if journal.exists() else b"") == before


async def replay(url: str, stream: bool, count: int = 20, tokens: int = 45) -> tuple[LoadResult, list[Outcome]]:
    outcomes: list[Outcome] = []

    def seen(_load: Load, outcome: Outcome) -> None:
        outcomes.append(outcome)

    load = Load(0.0, chat_body(TraceRow(0.0, 3, tokens), "m", stream), "k", stream)
    return await LoadClient(url).run([load] * count, 4, seen), outcomes


@pytest.mark.parametrize("stream", [False, True])
async def test_errors_are_not_served(tmp_path: Path, stream: bool) -> None:
    """With error_rate 1 every request is a 500 and the journal stays empty."""
    journal = tmp_path / "journal"
    with hello("--error-rate", "1", "--journal", str(journal)) as url:
        result, _ = await replay(url, stream)
    assert dict(result.outcomes) == {"500 internal_error": 20}
    assert journal.read_text() == ""


@pytest.mark.parametrize("stream", [False, True])
async def test_dropped_answers_are_served_and_billed(tmp_path: Path, stream: bool) -> None:
    """With drop_rate 1 no answer arrives whole, and each is in the journal with what was produced."""
    journal = tmp_path / "journal"
    with hello("--drop-rate", "1", "--journal", str(journal)) as url:
        result, _ = await replay(url, stream)
    assert dict(result.outcomes) == {"0 connection_lost": 20}
    assert {(line["state"], line["completion_tokens"]) for line in lines(journal)} == {
        ("dropped", 40 if stream else 45)
    }
    assert len(lines(journal)) == 20


def test_a_slow_stream_comes_token_by_token() -> None:
    """With ms_per_token each event has one token."""
    with hello("--ttft-ms", "1", "--ms-per-token", "0.1") as url:
        body = {"model": "m", "messages": MESSAGES, "max_tokens": 30, "stream": True}
        _, text = ask(url, "/v1/chat/completions", body)
    assert text.count('"content":"ok "') == 30


def test_a_caller_that_leaves_a_slow_stream_is_billed_what_was_produced(tmp_path: Path) -> None:
    """The line says abandoned, with fewer tokens than were asked for."""
    journal = tmp_path / "journal"
    with hello("--ms-per-token", "5", "--journal", str(journal)) as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
        body = {"model": "m", "messages": MESSAGES, "max_tokens": 100_000, "stream": True}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"x-request-id": "req_9"})
        answer = connection.getresponse()
        for _ in range(5):  # the role and two tokens, with empty lines between
            answer.readline()
        answer.close()
        connection.close()
        until(lambda: journal.read_text() != "")
    (line,) = lines(journal)
    assert (line["request_id"], line["state"]) == ("req_9", "abandoned")
    assert 2 <= line["completion_tokens"] < 100_000


def test_the_line_is_there_before_the_last_byte(served: tuple[str, Path]) -> None:
    """Whoever has a whole answer finds its line, each time."""
    url, journal = served
    for number in range(50):
        ask(
            url,
            "/v1/chat/completions",
            {"model": "m", "messages": MESSAGES, "stream": number % 2 == 1},
            f"req_n{number}",
        )
        assert lines(journal)[-1]["request_id"] == f"req_n{number}"


def test_a_process_tells_its_health_and_counts(served: tuple[str, Path]) -> None:
    """/healthz, /readyz and /metrics, as on every process."""
    url, _ = served
    for path in ("/healthz", "/readyz", "/metrics"):
        with urllib.request.urlopen(url + path, timeout=20) as answer:
            body = answer.read().decode()
    assert "hello_served_total" in body


def test_a_port_that_is_taken_is_said(served: tuple[str, Path]) -> None:
    """Exit 1 and one line, no traceback."""
    url, _ = served
    done = subprocess.run(
        [sys.executable, "-c", START, "hello", "--listen", url.removeprefix("http://")],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ,
    )
    assert done.returncode == 1
    assert "cannot listen on" in done.stderr
    assert "Traceback" not in done.stderr
