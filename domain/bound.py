"""What bounds the cost of a request before it is sent.

Text is bounded by its bytes: no tokenizer makes more tokens than bytes, and the JSON that carries a text is never
shorter than it. `OVERHEAD` covers what chat templates add beyond the JSON's own braces and names. Fields and content
parts are a whitelist: what is not on it has no bound, and is refused under a hard budget.
"""

OVERHEAD = 128
"""Tokens that a backend's chat template may add to any request."""

TOOLS_OVERHEAD = 1024
"""Tokens that a backend may add to a request with tools or a schema of the answer, to explain them to the model."""

PLAIN_FIELDS = frozenset(
    {
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "temperature", "top_p",
        "stop", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "user", "seed", "tools",
        "tool_choice", "parallel_tool_calls", "functions", "function_call", "response_format", "metadata", "store",
        "reasoning_effort", "verbosity", "safety_identifier", "prompt_cache_key", "service_tier", "modalities", "audio",
    }
)  # fmt: skip
"""Request fields that cost nothing beyond their bytes and the output cap."""

ASKED_WHEN_EMPTY = frozenset({"web_search_options"})
"""Fields that ask for something by being there: an empty object is their usual form."""

FREE_PARTS = frozenset({"text", "refusal"})
"""Content parts bounded by their bytes."""

CONTEXT_BOUNDED_PARTS = frozenset({"image_url", "input_audio", "file"})
"""Content parts whose tokens only the model's context window bounds."""

MODALITIES = frozenset({"text", "audio"})
"""What an answer may be whose tokens are part of the output, and so of its cap."""

PLAIN_TIERS = frozenset({b'"default"', b'"auto"', b"null"})
"""Service tiers (as JSON) that are billed at the listed price."""

COMPLETIONS_FIELDS = frozenset(
    {
        "model", "prompt", "stream", "stream_options", "max_tokens", "n", "temperature", "top_p", "stop", "presence_penalty",
        "frequency_penalty", "logit_bias", "logprobs", "echo", "suffix", "user", "seed", "metadata", "safety_identifier",
        "prompt_cache_key",
    }
)  # fmt: skip
"""`PLAIN_FIELDS` of plain completions. Not ``best_of``: what is thrown away is charged for."""

EMBEDDINGS_FIELDS = frozenset({"model", "input", "encoding_format", "dimensions", "user"})
"""`PLAIN_FIELDS` of embeddings."""

RESPONSES_FIELDS = frozenset(
    {
        "model", "input", "instructions", "stream", "stream_options", "max_output_tokens", "temperature", "top_p",
        "top_logprobs", "tools", "tool_choice", "parallel_tool_calls", "max_tool_calls", "text", "reasoning", "metadata",
        "store", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier", "truncation",
        "include",
    }
)  # fmt: skip
"""`PLAIN_FIELDS` of responses. Not what is kept at the backend or runs there by itself."""

FREE_ITEMS = frozenset(
    {
        "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning",
    }
)  # fmt: skip
"""Items of a response's input that are bounded by their bytes and their parts."""

FREE_ITEM_PARTS = frozenset({"input_text", "output_text", "refusal", "summary_text", "reasoning_text"})
"""`FREE_PARTS` of responses."""

CONTEXT_BOUNDED_ITEM_PARTS = frozenset({"input_image", "input_file", "input_audio"})
"""`CONTEXT_BOUNDED_PARTS` of responses."""

OWN_TOOLS = frozenset({"function", "custom"})
"""Tools that the caller runs; all others run at the backend."""

MESSAGES_FIELDS = frozenset(
    {
        "model", "messages", "system", "max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences", "metadata",
        "tools", "tool_choice", "thinking", "output_config", "service_tier", "speed", "cache_control",
    }
)  # fmt: skip
"""`PLAIN_FIELDS` of Anthropic's messages. `speed` and lifetimes of caches are looked into."""

FREE_BLOCKS = frozenset({"text", "thinking", "redacted_thinking", "tool_use", "tool_result", "search_result"})
"""`FREE_PARTS` of Anthropic's messages."""

CONTEXT_BOUNDED_BLOCKS = frozenset({"image", "document"})
"""`CONTEXT_BOUNDED_PARTS` of Anthropic's messages, wherever their source is."""

PLAIN_TOOLS = frozenset({"custom"})
"""Kinds of tool, without their version, that the caller runs and whose description is in the body."""

CONTEXT_BOUNDED_TOOLS = frozenset({"bash", "text_editor", "memory", "computer", "computer_toolset", "browser_toolset"})
"""Kinds of tool that the caller runs and that the backend describes to the model in words of its own. What is on neither list
runs at the backend, which then answers itself: any number of times."""

PLAIN_BETAS = frozenset(
    {
        "claude-code", "computer-use", "fine-grained-tool-streaming", "interleaved-thinking",
        "model-context-window-exceeded", "output-128k", "output-300k", "pdfs", "prompt-caching", "structured-outputs",
        "token-counting", "token-efficient-tools",
    }
)  # fmt: skip
"""Names in ``anthropic-beta``, without their date, that change no price and no bound."""


KNOWN_UNBOUNDED = frozenset(
    {
        "background", "best_of", "cache_control", "container", "context_management", "conversation", "inference_geo",
        "mcp_servers", "modalities", "prediction", "previous_response_id", "prompt", "service_tier", "speed", "tools",
        "web_search_options",
    }
)  # fmt: skip
"""Fields without a bound whose names are the protocols' own, and so may be written into the books: others may say anything."""


def text_bound(body_bytes: int, *, tools: bool = False) -> int:
    """Tokens that the input of a request cannot exceed, if it holds text only. `tools`: it describes tools or a schema."""
    return body_bytes + OVERHEAD + (TOOLS_OVERHEAD if tools else 0)
