"""What bounds the cost of a request before it is sent.

Text is bounded by its bytes: no tokenizer makes more tokens than bytes, and the JSON that carries a text is never
shorter than it. `OVERHEAD` covers what chat templates add beyond the JSON's own braces and names. Fields and content
parts are a whitelist: what is not on it has no bound, and is refused under a hard budget.
"""

OVERHEAD = 128
"""Tokens that a backend's chat template may add to any request."""

PLAIN_FIELDS = frozenset(
    {
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "temperature", "top_p",
        "stop", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "user", "seed", "tools",
        "tool_choice", "parallel_tool_calls", "functions", "function_call", "response_format", "metadata", "store",
        "reasoning_effort", "verbosity", "safety_identifier", "prompt_cache_key", "service_tier",
    }
)  # fmt: skip
"""Request fields that cost nothing beyond their bytes and the output cap."""

FREE_PARTS = frozenset({"text", "refusal"})
"""Content parts bounded by their bytes."""

CONTEXT_BOUNDED_PARTS = frozenset({"image_url", "input_audio", "file"})
"""Content parts whose tokens only the model's context window bounds."""

PLAIN_TIERS = frozenset({b'"default"', b'"auto"', b"null"})
"""Service tiers (as JSON) that are billed at the listed price."""


def text_bound(body_bytes: int) -> int:
    """Tokens that the input of a request cannot exceed, if it holds text only."""
    return body_bytes + OVERHEAD
