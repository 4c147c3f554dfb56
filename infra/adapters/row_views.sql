CREATE TABLE IF NOT EXISTS catalog (  -- versions of every view, exactly one of each name is live
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    live INTEGER NOT NULL,
    PRIMARY KEY (name, version)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS marks (  -- watermarks of the views in this store
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    position INTEGER NOT NULL,
    events INTEGER NOT NULL,
    PRIMARY KEY (name, version, partition)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS parked (
    id TEXT PRIMARY KEY,
    projection TEXT NOT NULL,
    partition INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    position INTEGER NOT NULL,
    org TEXT NOT NULL,
    type TEXT NOT NULL,
    body BLOB NOT NULL,
    error TEXT,                 -- NULL: waits behind an earlier one of its organization
    parked_at TEXT NOT NULL,
    dropped INTEGER NOT NULL DEFAULT 0
);
