"""``/v1/embeddings``: vectors of texts. There is no output to cap: what is held is the price of the input."""

from dataclasses import dataclass

from api.router.errors import RouterError
from api.router.faces.chat_stream import ChunkRelay
from api.router.faces.chat_usage import usage_of_embeddings
from api.router.faces.face import Carriage, Header
from api.router.faces.fields import Fields, field_of, fields_of, first_unlisted, model_of, texts
from api.router.faces.openai import OpenAIFace
from api.router.faces.same_protocol import SameProtocol
from commands.admission import Call
from domain.bound import EMBEDDINGS_FIELDS, text_bound
from domain.facts import Usage


class EmbeddingsFace(OpenAIFace):
    """See the module."""

    endpoint = "embeddings"

    def parse(self, body: bytes, header: Header) -> "EmbeddingsRequest":
        """See `Face.parse`."""
        del header
        return parse_embeddings(body)


@dataclass(slots=True)
class EmbeddingsRequest:
    """`call` is what admission needs; the rest makes the body that goes to a backend."""

    call: Call
    fields: Fields
    sent: bytes

    def carriage(self, protocol: str) -> Carriage:
        """See `Asked.carriage`."""
        if protocol != "openai":
            raise RouterError(
                "unsupported_parameter", "only backends that speak OpenAI's protocol embed", param="input"
            )
        return EmbeddingsCarriage(self)


class EmbeddingsCarriage(SameProtocol[EmbeddingsRequest]):
    """See the module."""

    __slots__ = ()
    path = "/embeddings"

    def answer(self, body: bytes, ceiling: int) -> tuple[Usage | None, bytes]:
        """See `Carriage.answer`."""
        return usage_of_embeddings(body, ceiling), body

    def relay(self, ceiling: int) -> ChunkRelay:
        """See `Carriage.relay`. Nobody asks for a stream; a backend that sends one all the same is passed on."""
        return ChunkRelay(True, ceiling)


def parse_embeddings(body: bytes) -> EmbeddingsRequest:
    """See `Face.parse`."""
    fields = fields_of(body)
    model = model_of(fields)
    if not field_of(fields, "input", texts, "must be text, tokens, or a list of either"):
        raise RouterError("invalid_value", "the field input is required and must not be empty", param="input")
    call = Call(
        endpoint=EmbeddingsFace.endpoint,
        model=model,
        stream=False,
        input_bound=text_bound(len(body)),
        estimated_input=len(body) // 4,
        cap=0,
        unbounded=first_unlisted(fields, EMBEDDINGS_FIELDS),
    )
    return EmbeddingsRequest(call, fields, body)
