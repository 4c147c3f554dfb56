CREATE TABLE IF NOT EXISTS events (
    originator_id TEXT COLLATE "C" NOT NULL,
    originator_version BIGINT NOT NULL,
    topic TEXT NOT NULL,
    state BYTEA NOT NULL,
    notification_id BIGSERIAL NOT NULL,
    PRIMARY KEY (originator_id, originator_version)
);

CREATE UNIQUE INDEX IF NOT EXISTS events_notification_id_idx ON events (notification_id);

CREATE TABLE IF NOT EXISTS commands (
    actor TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    fingerprint TEXT NOT NULL,
    at BIGINT NOT NULL,  -- unix seconds
    status BIGINT NOT NULL,
    position BIGINT NOT NULL,
    etag TEXT,
    sealed BOOLEAN NOT NULL,
    body BYTEA,
    PRIMARY KEY (actor, key)
);

CREATE INDEX IF NOT EXISTS commands_sealed ON commands (at) WHERE sealed AND body IS NOT NULL;
