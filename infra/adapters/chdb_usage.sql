CREATE TABLE IF NOT EXISTS usage_requests_{v} (
    org String,
    attempt String,
    kind UInt8,
    version UInt64,
    partition UInt8,
    offset UInt64,
    request String,
    time DateTime64(6, 'UTC'),
    project String,
    user String,
    key String,
    model String,
    backend String,
    endpoint String,
    stream Bool,
    outcome LowCardinality(String),
    code String,
    status UInt16,
    price String,
    hold Int64,
    cost Int64,
    estimated Bool,
    overrun Bool,
    abandoned Bool,
    input UInt64,
    cached_input UInt64,
    cache_write UInt64,
    output UInt64,
    reasoning UInt64,
    latency_ms Float64,
    first_token_ms Float64,
    count UInt32,
    last String
) ENGINE = ReplacingMergeTree(version) ORDER BY (org, attempt, kind);

ALTER TABLE usage_requests_{v}
    ADD COLUMN IF NOT EXISTS audio_input UInt64,
    ADD COLUMN IF NOT EXISTS image_input UInt64,
    ADD COLUMN IF NOT EXISTS audio_output UInt64;

CREATE TABLE IF NOT EXISTS usage_facts_{v} (
    org String,
    request String,
    partition UInt8,
    offset UInt64,
    type LowCardinality(String),
    time DateTime64(6, 'UTC'),
    body String,
    INDEX by_offset offset TYPE minmax
) ENGINE = ReplacingMergeTree ORDER BY (org, request, partition, offset)
