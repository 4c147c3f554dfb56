"""Keys: 256 random bits in base62 with a checksum."""

from hypothesis import given
from hypothesis import strategies as st

from domain.credential import ADMIN, SERVICE, make_key, redact, well_formed

KEYS = st.builds(make_key, st.sampled_from([SERVICE, ADMIN]), st.integers(0, 2**256 - 1))


@given(KEYS)
def test_a_key_is_well_formed_under_its_own_prefix_only(key: str) -> None:
    """And people see no more than its last four characters."""
    assert len(key) == 55
    assert well_formed(key, key[:6])
    assert not well_formed(key, SERVICE if key.startswith(ADMIN) else ADMIN)
    assert len(set(redact(key)) - set(key)) == 1
    assert key[6:-4] not in redact(key)


@given(KEYS, st.integers(0, 54), st.characters())
def test_one_changed_character_is_noticed_offline(key: str, place: int, character: str) -> None:
    """Also one that is no ASCII."""
    changed = key[:place] + character + key[place + 1 :]
    assert well_formed(changed, key[:6]) == (changed == key)


@given(st.text(max_size=80))
def test_what_is_not_a_key_is_not_well_formed(text: str) -> None:
    """And is no error either."""
    assert not well_formed(text, SERVICE)


def test_different_numbers_make_different_keys() -> None:
    """The whole range fits."""
    assert len({make_key(SERVICE, number) for number in (0, 1, 2**255, 2**256 - 2, 2**256 - 1)}) == 5
