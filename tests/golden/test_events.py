"""The stored bytes of every event type: what was written once is read for ever, and is written the same today.

One file per type and schema in `events/`, each with every field filled. A file of the current schema must come back byte
for byte; files of older schemas stay and must still be readable. Never change a file: add one.
"""

from pathlib import Path

import pytest
from msgspec import json

from domain.envelope import Envelope, decode, encode
from domain.facts import FACTS
from domain.registry import CONTROL, SCHEMAS, decode_event

FOLDER = Path(__file__).parent / "events"
FILES = sorted(FOLDER.iterdir())


def test_every_type_and_schema_has_its_file_and_no_other() -> None:
    """A new event type or schema needs its golden file; none is left over."""
    wanted = {f"{name}.v{schema}.json" for name, current in SCHEMAS.items() for schema in range(1, current + 1)}
    assert {file.name for file in FILES} == wanted
    assert len(CONTROL) + len(FACTS) == len(SCHEMAS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_stored_bytes_are_read_and_written_the_same(file: Path) -> None:
    """Envelope and data, in the order and spelling of the file."""
    body = file.read_bytes().rstrip(b"\n")
    envelope = decode(body)
    event = decode_event(envelope)
    assert file.name == f"{envelope.type}.v{envelope.schema}.json"
    assert type(event) is {**CONTROL, **FACTS}[envelope.type]
    if envelope.schema == SCHEMAS[envelope.type]:
        fields = {name: getattr(envelope, name) for name in envelope.__struct_fields__}
        assert encode(Envelope(**{**fields, "data": event})) == body


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_golden_file_shows_every_field(name: str) -> None:
    """Else a renamed field that is left out by default would go unnoticed."""
    body = (FOLDER / f"{name}.v{SCHEMAS[name]}.json").read_bytes()
    shape = {**CONTROL, **FACTS}[name]
    assert set(json.decode(body)["data"]) == set(shape.__struct_encode_fields__)
