"""``/v1/completions``: plain texts, one answer for each prompt and choice. Carried to an OpenAI backend as it comes."""

from dataclasses import dataclass

from api.router.errors import RouterError
from api.router.faces.chat import MAX_CHOICES, ChatCarriage, ChatRequest, wants_usage
from api.router.faces.face import Carriage, Header
from api.router.faces.fields import Texts, cap_of, field_of, fields_of, first_unlisted, flag, integer, model_of, texts
from api.router.faces.openai import OpenAIFace
from commands.admission import Call
from domain.bound import COMPLETIONS_FIELDS, text_bound


class CompletionsFace(OpenAIFace):
    """See the module."""

    endpoint = "completions"

    def parse(self, body: bytes, header: Header) -> "CompletionsRequest":
        """See `Face.parse`."""
        del header
        return parse_completions(body)


@dataclass(slots=True)
class CompletionsRequest(ChatRequest):
    """As a chat completion is carried, but for the path."""

    def carriage(self, protocol: str) -> Carriage:
        """See `Asked.carriage`."""
        if protocol != "openai":
            raise RouterError(
                "unsupported_parameter", "prompts are for backends that speak OpenAI's protocol", param="prompt"
            )
        return CompletionsCarriage(self)


class CompletionsCarriage(ChatCarriage):
    """To a backend that speaks the same: bytes pass."""

    __slots__ = ()
    path = "/completions"


def parse_completions(body: bytes) -> CompletionsRequest:
    """See `Face.parse`."""
    fields = fields_of(body)
    model = model_of(fields)
    prompt: Texts | None = field_of(fields, "prompt", texts, "must be text, tokens, or a list of either")
    if prompt is None:
        raise RouterError("invalid_value", "the field prompt is required", param="prompt")
    choices = _prompts(prompt) * _choices(field_of(fields, "n", integer, "must be a whole number"))
    if not 1 <= choices <= MAX_CHOICES:
        raise RouterError("invalid_value", f"prompts times n must be between 1 and {MAX_CHOICES}", param="n")
    cap, cap_field = cap_of(fields, ("max_tokens",))
    call = Call(
        endpoint=CompletionsFace.endpoint,
        model=model,
        stream=bool(field_of(fields, "stream", flag, "must be true or false")),
        input_bound=text_bound(len(body)),
        estimated_input=len(body) // 4,
        cap=cap,
        choices=choices,
        unbounded=first_unlisted(fields, COMPLETIONS_FIELDS),
    )
    return CompletionsRequest(call, wants_usage(fields), fields, cap_field, body)


def _prompts(prompt: Texts) -> int:
    """How many prompts there are: each is answered by itself."""
    if isinstance(prompt, str) or not prompt or isinstance(prompt[0], int):
        return 1
    return len(prompt)


def _choices(n: int | None) -> int:
    return 1 if n is None else n
