"""The stored bytes of every event type: what was written once is read for ever, and is written the same today.

One file per type and schema in `events/`, each with every field filled. A field that is added later, with a default, comes
with a file of its own, ``<type>.v<schema>.<field>.json``, in which it is filled. A file of the current schema must come back
byte for byte; files of older schemas stay and must still be readable. Never change a file: add one.
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
    wanted = {f"{name}.v{schema}" for name, current in SCHEMAS.items() for schema in range(1, current + 1)}
    assert {_shape(file) for file in FILES} == wanted
    assert {f"{shape}.json" for shape in wanted} <= {file.name for file in FILES}
    assert len(CONTROL) + len(FACTS) == len(SCHEMAS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_stored_bytes_are_read_and_written_the_same(file: Path) -> None:
    """Envelope and data, in the order and spelling of the file."""
    body = file.read_bytes().rstrip(b"\n")
    envelope = decode(body)
    event = decode_event(envelope)
    assert _shape(file) == f"{envelope.type}.v{envelope.schema}"
    assert type(event) is {**CONTROL, **FACTS}[envelope.type]
    if envelope.schema == SCHEMAS[envelope.type]:
        fields = {name: getattr(envelope, name) for name in envelope.__struct_fields__}
        assert encode(Envelope(**{**fields, "data": event})) == body


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_golden_files_show_every_field(name: str) -> None:
    """Else a renamed field that is left out by default would go unnoticed."""
    files = [file for file in FILES if _shape(file) == f"{name}.v{SCHEMAS[name]}"]
    shown = {field for file in files for field in json.decode(file.read_bytes())["data"]}
    assert shown == set({**CONTROL, **FACTS}[name].__struct_encode_fields__)


def _shape(file: Path) -> str:
    """``<type>.v<schema>``."""
    return ".".join(file.name.split(".")[:2])
