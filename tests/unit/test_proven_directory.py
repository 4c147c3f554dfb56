"""The directory of a process that shares the control topic with others: it answers what is proved, not what it remembers."""

import threading
import time
from collections.abc import Callable

import pytest

from commands.ports import Entry
from domain.admin_key import AdminKeyIssued, AdminKeyRevoked
from domain.errors import NotReady
from domain.ids import PLATFORM
from infra.adapters.keyring_directory import ProvenDirectory
from projections.keyring import FRESH, Keyring
from tests.controlgen import ControlTraffic

ISSUED = AdminKeyIssued(name="n", role="platform-admin", org=None, hash="h", redacted="r")
STREAM = f"{PLATFORM}/admin-key/key_1"


class House:
    """A topic that has the admin key with hash "h", and a process that has not read it yet."""

    def __init__(self, patience: float = 0.05) -> None:
        self.keyring, self.traffic = Keyring(), ControlTraffic()
        self.directory = ProvenDirectory(self.keyring, patience)
        self.traffic.emit(STREAM, ISSUED)

    def read(self) -> None:
        self.keyring.apply(self.traffic.log.read(0, self.keyring.offset, 1000))

    def asked(self, ask: Callable[[], Entry | None]) -> Entry | None:
        """The answer to a question that is asked before the process has read what there is."""
        answers: list[Entry | None] = []
        asking = threading.Thread(target=lambda: answers.append(ask()))
        asking.start()
        time.sleep(0.02)
        self.read()
        self.keyring.proved(time.monotonic())
        asking.join()
        return answers[0]


def test_a_view_that_is_not_fresh_knows_nobody() -> None:
    """Neither a key that it remembers, which may be revoked, nor one it never heard of, which may have been issued."""
    house = House()
    house.read()
    house.keyring.proved(time.monotonic() - FRESH - 0.01)
    for hashed in ("h", "other"):
        assert house.directory.admin_at_hand(hashed) is None
        with pytest.raises(NotReady):
            house.directory.admin(hashed)


def test_a_fresh_view_answers_for_the_keys_it_knows() -> None:
    """At once: the bound on revocations is what fresh means."""
    house = House()
    house.read()
    house.keyring.proved(time.monotonic())
    assert house.directory.admin("h") is not None
    assert house.directory.admin_at_hand("h") is not None
    assert house.directory.admin_at_hand("other") is None


def test_a_key_issued_by_another_process_is_known_at_once() -> None:
    """A key that is not known is looked for again in a view that is as of the question."""
    house = House(patience=10.0)
    house.keyring.proved(time.monotonic())
    assert house.asked(lambda: house.directory.admin("h")) is not None
    house.traffic.emit(STREAM, AdminKeyRevoked(reason=None))
    house.read()
    assert house.asked(lambda: house.directory.admin("h")) is None


def test_resources_are_as_of_the_question() -> None:
    """What another process has made, or changed, is there; a view that cannot be proved answers nothing."""
    house = House(patience=10.0)
    house.keyring.proved(time.monotonic())
    found = house.asked(lambda: house.directory.get(PLATFORM, "admin-key", "key_1"))
    assert found is not None
    assert found.version == 1
    behind = House()
    behind.keyring.proved(time.monotonic())
    with pytest.raises(NotReady):
        behind.directory.get(PLATFORM, "admin-key", "key_1")
    with pytest.raises(NotReady):
        behind.directory.list(None, "admin-key", 0, 10)
