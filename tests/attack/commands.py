"""The command API as somebody with an admin key and a broken client sees it: bodies that are carried out."""

from tests.attack.endpoints import Endpoint

_BUDGET = {
    "scope": {"kind": "org"},
    "limit_usd": "100",
    "period": {"every": "5h"},
    "timezone": "UTC",
    "mode": "soft",
    "models": ["m"],
    "thresholds": [0.5, 1.0],
}
_LIMITS = {"requests_per_minute": 5, "tokens_per_minute": 5, "concurrent": 5}
_KEY = {"name": "k", "project": "main", "models": ["m"], "expires_at": "2030-01-01T00:00:00Z", "limits": _LIMITS}
_BACKEND = {
    "url": "http://127.0.0.1:9/v1",
    "protocol": "openai",
    "credential": "c",
    "timeout_seconds": 1.5,
    "weight": 1,
}
_ROUTE = {"backend": "hello", "upstream_model": "x", "weight": 1, "tier": 0}

COMMANDS = (
    Endpoint("POST /admin/v1/orgs", {"id": "x", "name": "X", "timezone": "UTC", "budget_status": 402}),
    Endpoint("POST /admin/v1/orgs/attacked/projects", {"id": "x", "name": "X"}),
    Endpoint("POST /admin/v1/orgs/attacked/users", {"email": "a@b.example", "role": "member"}),
    Endpoint("POST /admin/v1/orgs/attacked/keys", _KEY),
    Endpoint("POST /admin/v1/admin-keys", {"name": "a", "role": "org-viewer", "org": "attacked"}),
    Endpoint("PUT /admin/v1/orgs/attacked/budgets/b", _BUDGET),
    Endpoint("POST /admin/v1/orgs/attacked/budgets/b/adjust", {"amount_usd": "1", "reason": "r"}),
    Endpoint("PUT /admin/v1/backends/attacked", _BACKEND),
    Endpoint("PUT /admin/v1/models/attacked", {"routes": [_ROUTE], "max_output_tokens": 5, "context_tokens": 50}),
    Endpoint("PUT /admin/v1/prices/attacked", {"input_usd": "1", "output_usd": "1", "cached_input_usd": "1"}),
)
