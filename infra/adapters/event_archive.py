"""An installation's journal and log in one file: gzipped lines of JSON, the head first, the counts and a digest last.

Stored format: it is read by later versions. Bytes are base64, so what a record holds need not be text. It contains no secret;
answers that do are ciphertext, as in the journal.
"""

import gzip
import hashlib
import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from commands.moving import FORMAT, ControlRecord, FactRecord, Head, JournalEvent
from commands.ports import CommandRow
from domain.errors import Conflict, NotFound, invalid

_LEVEL = 3
_encode = msgspec.json.Encoder().encode
T = TypeVar("T", JournalEvent, CommandRow, ControlRecord, FactRecord)


class _End(Struct, frozen=True, tag="end"):
    head: Head
    sha256: str


_end = msgspec.json.Decoder(_End).decode


def write_archive(
    path: Path,
    made_at: datetime,
    secret: str,
    partitions: int,
    journal: Iterable[JournalEvent],
    commands: Iterable[CommandRow],
    control: Iterable[ControlRecord],
    facts: Iterable[FactRecord],
) -> Head:
    """Writes a new file, readable by its owner only, which has its name once it is whole. Raises `Conflict` if there is one."""
    if path.exists():
        raise Conflict(f"{path} is there already", code="file_exists")
    head = Head(
        format=FORMAT,
        made_at=made_at,
        secret=secret,
        partitions=partitions,
        journal=0,
        commands=0,
        control=0,
        facts=0,
    )
    part = path.with_name(f"{path.name}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=_LEVEL, mtime=0) as file:
                digest = hashlib.sha256()

                def put(value: Struct) -> None:
                    line = _encode(value) + b"\n"
                    digest.update(line)
                    file.write(line)

                def put_all(values: Iterable[Struct]) -> int:
                    count = 0
                    for value in values:
                        put(value)
                        count += 1
                    return count

                put(head)
                head = replace(
                    head,
                    journal=put_all(journal),
                    commands=put_all(commands),
                    control=put_all(control),
                    facts=put_all(facts),
                )
                file.write(_encode(_End(head, digest.hexdigest())) + b"\n")
            raw.flush()
            os.fsync(raw.fileno())
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return head


class EventArchive:
    """`commands.moving.Archive` of a file. Opening reads all of it once. Raises `NotFound`, or `Invalid` if it is not whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.head = self._checked()

    def journal(self) -> Iterator[JournalEvent]:
        """See `Archive`."""
        return self._records(JournalEvent, 0, self.head.journal)

    def commands(self) -> Iterator[CommandRow]:
        """See `Archive`."""
        return self._records(CommandRow, self.head.journal, self.head.commands)

    def control(self) -> Iterator[ControlRecord]:
        """See `Archive`."""
        return self._records(ControlRecord, self.head.journal + self.head.commands, self.head.control)

    def facts(self) -> Iterator[FactRecord]:
        """See `Archive`."""
        return self._records(FactRecord, self.head.records - self.head.facts, self.head.facts)

    def _checked(self) -> Head:
        digest, last, lines = hashlib.sha256(), b"", -2
        for line in self._lines():
            digest.update(last)
            last, lines = line, lines + 1
        try:
            end = _end(last)
        except msgspec.MsgspecError:
            raise self._torn("it has no end") from None
        if end.sha256 != digest.hexdigest() or end.head.records != lines:
            raise self._torn("its digest is another")
        return end.head

    def _records(self, kind: type[T], skipped: int, count: int) -> Iterator[T]:
        decode = msgspec.json.Decoder(kind).decode
        for number, line in enumerate(self._lines(), -1):  # the head is line -1
            if number >= skipped + count:
                return
            if number >= skipped:
                yield decode(line)

    def _lines(self) -> Iterator[bytes]:
        try:
            with gzip.open(self._path, "rb") as file:
                yield from file
        except FileNotFoundError:
            raise NotFound(f"there is no file {self._path}") from None
        except (EOFError, gzip.BadGzipFile, OSError) as error:
            raise self._torn(str(error)) from error

    def _torn(self, reason: str) -> Exception:
        return invalid(str(self._path), f"must be a whole file of `tollhouse events export`: {reason}")
