CREATE TABLE directory_entries_{v} (
    stream TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    org TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,  -- JSON
    removed INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    changed_at TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX directory_entries_{v}_list ON directory_entries_{v} (org, kind, removed, id)
