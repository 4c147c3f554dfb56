"""Embedded mode: no secret and no text of anybody is anywhere but where it belongs."""

import base64
import hashlib
from collections.abc import Callable

import pytest

from tests.canaries import tables
from tests.canaries.backend import parrot
from tests.canaries.flow import Flow, leaks, reads
from tests.canaries.planted import Canaries
from tests.http1 import Http
from tests.lab import Lab

OURS = frozenset({"admin.key", "secret"})
"""Files that hold a secret, readable by their owner only."""


async def test_no_canary_gets_out() -> None:
    """Keys, a credential, Idempotency-Keys, headers, prompts and answers: in no log, no file of the folder, no table, no error of
    ours, no answer of the read side, no metric and no export, after everything was done and everything went wrong."""
    canaries = Canaries()
    async with Lab() as lab, parrot(canaries.plant("an answer")) as backend, Http(lab.url) as gateway:
        flow = Flow(lab, gateway, lab.listen, backend, canaries)
        await flow.run("acme")
        await reads(flow, lab.http)
        code, out, err = await lab.run("backend", "list", "-o", "json")
        assert code == 0, err
        flow.told.append(("tollhouse backend list", out.encode()))
        await lab.product.stop()
        export = lab.folder / "export"
        code, _, err = await lab.run("events", "export", str(export))
        assert code == 0, err
        places = {
            "the log": lab.product.log.read_bytes(),
            "the exported events": tables.unpacked(export),
            **tables.folder(lab.data, OURS),
            **tables.analytics(lab.data / "analytics"),
        }
        assert leaks(flow, places) == []
        assert flow.went_on() == []
        for name in OURS:
            assert (lab.data / name).stat().st_mode & 0o77 == 0


@pytest.mark.parametrize(
    "coat",
    [
        lambda raw: raw,
        lambda raw: b'{"a": "x' + raw + b'x"}',
        lambda raw: raw.hex().encode(),
        lambda raw: base64.b64encode(b"Bearer " + raw + b"..."),
        lambda raw: base64.urlsafe_b64encode(b"x" + raw + b"\xff"),
        lambda raw: hashlib.sha256(raw).hexdigest().encode(),
    ],
)
def test_a_canary_is_found(coat: Callable[[bytes], bytes]) -> None:
    """Whatever it wears."""
    canaries = Canaries()
    text = canaries.plant("a key", "th_sk_")
    canaries.plant("another")
    assert {name.split(",")[0] for name in canaries.found(b"..." + coat(text.encode()) + b"...")} == {"a key"}
