"""Fills an empty PostgreSQL journal with another journal, positions and ledger included."""

from collections.abc import Iterable, Sequence

import psycopg
from psycopg.rows import TupleRow, tuple_row

from commands.moving import JournalEvent
from commands.ports import CommandRow
from domain.errors import Conflict, Unavailable
from infra.adapters.postgres import Connections, transaction
from infra.adapters.recorded_journal import COMMANDS, EVENTS

_LOCK = f"BEGIN; LOCK TABLE {EVENTS}, {COMMANDS} IN ACCESS EXCLUSIVE MODE".encode()
_THERE = f"SELECT notification_id, originator_id, originator_version, topic, state FROM {EVENTS} ORDER BY 1".encode()
_EVENTS = (
    f"COPY {EVENTS} (notification_id, originator_id, originator_version, topic, state) FROM STDIN (FORMAT BINARY)"
).encode()
_ROWS = f"COPY {COMMANDS} ({', '.join(CommandRow.__struct_fields__)}) FROM STDIN (FORMAT BINARY)".encode()
_GO_ON = f"SELECT setval('{EVENTS}_notification_id_seq', (SELECT max(notification_id) FROM {EVENTS}))".encode()


def restore_journal(url: str, events: Iterable[JournalEvent], commands: Iterable[CommandRow]) -> int:
    """Puts all of it into the journal at `url`, whose tables are there, and answers how many rows; none if it is there already.

    One transaction. Raises `Conflict` (``not_empty``) if the journal holds anything else, `Unavailable`.
    """
    connections = Connections(url, tuple_row)
    try:
        with connections.borrowed() as connection, transaction(connection, _LOCK):
            wanted = [(e.position, e.stream, e.version, e.type, e.body) for e in events]
            there = [(*row[:4], bytes(row[4])) for row in connection.execute(_THERE)]
            if there:
                if there == wanted:
                    return 0
                raise Conflict("the journal holds other events: carry it into an empty database", code="not_empty")
            rows = list(commands)
            _copy(connection, _EVENTS, ("int8", "text", "int8", "text", "bytea"), wanted)
            types = ("text", "text", "text", "int8", "int8", "int8", "text", "bool", "bytea")
            _copy(connection, _ROWS, types, [tuple(getattr(r, n) for n in r.__struct_fields__) for r in rows])
            if wanted:
                connection.execute(_GO_ON)
            return len(wanted) + len(rows)
    except psycopg.Error as error:
        raise Unavailable(f"the journal cannot be filled: {error}", code="journal_unavailable") from error
    finally:
        connections.close()


def _copy(
    connection: psycopg.Connection[TupleRow],
    statement: bytes,
    types: tuple[str, ...],
    rows: Sequence[tuple[object, ...]],
) -> None:
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)
