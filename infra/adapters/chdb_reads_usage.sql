SELECT
    {bucket} AS bucket,
    {groups} AS group_of,
    countIf(outcome IN ('completed', 'unconfirmed')),
    sumIf(count, outcome = 'denied'),
    countIf(outcome = 'failed'),
    countIf(outcome = 'unconfirmed'),
    countIf(outcome = 'open'),
    countIf(outcome = 'written_off'),
    countIf(outcome = 'void'),
    sum(input),
    sum(cached_input),
    sum(cache_write),
    sum(output),
    sum(reasoning),
    sum(audio_input),
    sum(image_input),
    sum(audio_output),
    sum(cost),
    sumIf(cost, outcome = 'unconfirmed'),
    if(countIf(outcome = 'completed') = 0, [], quantilesExactIf(0.5, 0.95, 0.99)(latency_ms, outcome = 'completed')),
    if(countIf(first_token_ms >= 0) = 0, [], quantilesExactIf(0.5, 0.95, 0.99)(first_token_ms, first_token_ms >= 0))
FROM usage_requests_{v} FINAL
WHERE {where}
GROUP BY bucket, group_of
ORDER BY bucket, group_of
