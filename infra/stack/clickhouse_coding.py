"""Encodings of bodies, as ClickHouse's HTTP interface takes and gives them. The modules are those of its client."""

import gzip
import zlib
from collections.abc import Callable

import lz4.frame  # type: ignore[import-untyped]
from backports import zstd
from msgspec import Struct


class Encoder(Struct):
    """`name`: None where nothing is encoded. Every piece goes through `compress`; what `flush` answers comes last."""

    name: str | None
    compress: Callable[[bytes], bytes]
    flush: Callable[[], bytes]


PLAIN = Encoder(None, bytes, bytes)


def decoded(body: bytes, encoding: str) -> bytes:
    """The whole of an encoded body. Raises `KeyError` for an encoding that is not known."""
    return _DECODERS[encoding](body)


def encoder(wanted: str) -> Encoder:
    """The first encoding of a list, such as ``lz4,zstd``, that is known."""
    for name in wanted.split(","):
        match name.strip().partition(";")[0]:
            case "lz4":
                return _lz4()
            case "zstd":
                coder = zstd.ZstdCompressor()
                return Encoder("zstd", coder.compress, coder.flush)
            case "gzip":
                zipped = zlib.compressobj(wbits=31)
                return Encoder("gzip", zipped.compress, zipped.flush)
            case "deflate":
                deflated = zlib.compressobj()
                return Encoder("deflate", deflated.compress, deflated.flush)
    return PLAIN


def _lz4() -> Encoder:
    frame = lz4.frame.LZ4FrameCompressor()
    head = [frame.begin()]

    def compress(piece: bytes) -> bytes:
        return (head.pop() if head else b"") + bytes(frame.compress(piece))

    def flush() -> bytes:
        return (head.pop() if head else b"") + bytes(frame.flush())

    return Encoder("lz4", compress, flush)


def _frames(body: bytes) -> bytes:
    """A client writes a frame for each block of an insert."""
    whole = b""
    while body:
        frame = lz4.frame.LZ4FrameDecompressor()
        whole += frame.decompress(body)
        body = frame.unused_data or b""
    return whole


_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "lz4": _frames,
    "zstd": zstd.decompress,
}
