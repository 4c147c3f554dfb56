"""Which tables a PostgreSQL database has: what tells a first start from a later one."""

import psycopg
from psycopg.rows import tuple_row

from domain.errors import Unavailable
from infra.adapters.postgres import Connections

_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"


def tables(url: str) -> set[str]:
    """Their names. Raises `Unavailable`."""
    connections = Connections(url, tuple_row)
    try:
        with connections.borrowed() as connection:
            return {name for (name,) in connection.execute(_TABLES)}
    except psycopg.Error as error:
        raise Unavailable(f"PostgreSQL: {error}", code="journal_unavailable") from error
    finally:
        connections.close()
