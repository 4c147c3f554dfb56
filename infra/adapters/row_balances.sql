CREATE TABLE balances_attempts_{v} (  -- open and unconfirmed ones with their admission, ended ones for a day
    attempt TEXT PRIMARY KEY,
    partition INTEGER NOT NULL,
    org TEXT NOT NULL,
    state TEXT NOT NULL,
    accounted_at INTEGER,  -- all times: microseconds since 1970
    hold INTEGER NOT NULL,
    deadline INTEGER,
    buckets TEXT,          -- JSON: [[budget, bucket], ...]
    body BLOB              -- the admission as stored
) WITHOUT ROWID;

CREATE INDEX balances_attempts_{v}_age ON balances_attempts_{v} (partition, accounted_at);

CREATE INDEX balances_attempts_{v}_open ON balances_attempts_{v} (deadline) WHERE state = 'open';

CREATE INDEX balances_attempts_{v}_unconfirmed ON balances_attempts_{v} (org) WHERE state = 'unconfirmed';

CREATE TABLE balances_buckets_{v} (  -- nano-dollars
    org TEXT NOT NULL,
    budget TEXT NOT NULL,
    bucket TEXT NOT NULL,
    partition INTEGER NOT NULL,
    consumed INTEGER NOT NULL,
    held INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    until INTEGER,
    PRIMARY KEY (org, budget, bucket)
) WITHOUT ROWID;

CREATE TABLE balances_once_{v} (
    once TEXT PRIMARY KEY,
    partition INTEGER NOT NULL,
    request TEXT NOT NULL,
    accounted_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX balances_once_{v}_age ON balances_once_{v} (partition, accounted_at);

CREATE TABLE balances_epochs_{v} (  -- every opening of the gate that raised the epoch
    partition INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    PRIMARY KEY (partition, "offset")
) WITHOUT ROWID;

CREATE TABLE balances_partitions_{v} (
    partition INTEGER PRIMARY KEY,
    newest INTEGER  -- accounted time of the newest admission
);

CREATE TABLE balances_overruns_{v} (  -- of each model the last attempt that cost more than its hold (nano-dollars)
    model TEXT NOT NULL,
    partition INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    request TEXT NOT NULL,
    attempt TEXT NOT NULL,
    cost INTEGER NOT NULL,
    hold INTEGER NOT NULL,
    PRIMARY KEY (model, partition)
) WITHOUT ROWID
