SELECT
    org, request, attempt, kind, time, project, user, key, model, backend, endpoint, stream, outcome, code, status, price,
    hold, cost, estimated, overrun, abandoned, input, cached_input, cache_write, output, reasoning,
    audio_input, image_input, audio_output, latency_ms, first_token_ms, count, last
FROM usage_requests_{v} FINAL
WHERE {where}
