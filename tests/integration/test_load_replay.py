"""`tollhouse load` against Hello: every row of a trace arrives with its own sizes, and the journal says the same."""

import json
import subprocess
import sys
from pathlib import Path

from tests.integration.test_hello import START, hello, lines

ROWS = [(n % 50 + 1, n % 30 + 1) for n in range(300)]


def test_a_replayed_trace_is_served_row_by_row(tmp_path: Path) -> None:
    """Plain and streamed mixed, many at a time: the tokens reported, the journal and the trace agree exactly."""
    trace, journal = tmp_path / "trace.csv", tmp_path / "journal"
    rows = "".join(f"2023-11-16 18:15:46.{n:06d},{context},{made}\n" for n, (context, made) in enumerate(ROWS))
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    options = ["--key", "a", "--concurrency", "16", "--stream-share", "0.5", "-o", "json"]
    with hello("--journal", str(journal)) as url:
        done = subprocess.run(
            [sys.executable, "-c", START, "load", "--trace", str(trace), "--url", url, *options],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["outcomes"] == {"200": 300}
    sizes = sum(context for context, _ in ROWS), sum(made for _, made in ROWS)
    assert (result["prompt_tokens"], result["completion_tokens"]) == sizes
    served = lines(journal)
    assert sorted((line["prompt_tokens"], line["completion_tokens"]) for line in served) == sorted(ROWS)
    assert sum(line["stream"] for line in served) == 150
