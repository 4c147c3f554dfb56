CREATE TABLE world_answers_{v} (
    org TEXT NOT NULL,
    attempt TEXT NOT NULL,
    model TEXT NOT NULL,
    time INTEGER NOT NULL,  -- unix microseconds
    latency_us INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    PRIMARY KEY (org, attempt)
) WITHOUT ROWID;

CREATE INDEX world_answers_{v}_age ON world_answers_{v} (partition, time);

CREATE INDEX world_answers_{v}_recent ON world_answers_{v} (org, time)
