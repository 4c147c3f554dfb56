"""Keyed hashes and sealed credentials depend on the installation's secret."""

import pytest

from domain.errors import Unavailable
from infra.adapters.secrets import InstallationSecrets

OURS, OTHERS = InstallationSecrets(b"a" * 32), InstallationSecrets(b"b" * 32)


def test_a_hash_is_stable_and_needs_the_secret() -> None:
    """Two processes with one secret agree; without it the hash cannot be computed."""
    assert OURS.hash("th_sk_x") == InstallationSecrets(b"a" * 32).hash("th_sk_x")
    assert OURS.hash("th_sk_x") != OTHERS.hash("th_sk_x")
    assert OURS.hash("th_sk_x") != OURS.hash("th_sk_y")


def test_a_sealed_credential_opens_under_its_secret_only() -> None:
    """Sealing twice gives different texts; another secret or a changed text is `wrong_secret`."""
    sealed = OURS.seal("sk-upstream")
    assert "sk-upstream" not in sealed
    assert sealed != OURS.seal("sk-upstream")
    assert OURS.unseal(sealed) == "sk-upstream"
    with pytest.raises(Unavailable, match="TOLLHOUSE_SECRET"):
        OTHERS.unseal(sealed)
    with pytest.raises(Unavailable):
        OURS.unseal(sealed[:-8] + ("A" * 8))


def test_randomness_has_the_size_asked_for() -> None:
    """And is not the same twice."""
    numbers = {OURS.random(256) for _ in range(100)}
    assert len(numbers) == 100
    assert max(numbers) < 2**256
