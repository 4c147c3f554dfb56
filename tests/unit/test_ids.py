"""Identifiers: the partitioner is Kafka's, made ids sort by time, chosen ids are checked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Invalid
from domain.ids import PARTITIONS, chosen_id, made_id, murmur2, partition_of, uuid7


@pytest.mark.parametrize(
    ("data", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(data: bytes, signed: int) -> None:
    """The vectors of Kafka's own UtilsTest, as unsigned numbers."""
    assert murmur2(data) == signed & 0xFFFFFFFF


@given(st.text(min_size=1, max_size=60))
def test_every_organization_has_one_partition(org: str) -> None:
    """A partition is in range and depends on the id alone."""
    assert partition_of(org) == partition_of(org)
    assert 0 <= partition_of(org) < PARTITIONS


def test_partitions_are_where_kafkas_partitioner_puts_them() -> None:
    """toPositive(murmur2) modulo the count, by the vectors above."""
    assert partition_of("foobar") == (-790332482 & 0x7FFFFFFF) % 12
    assert partition_of("abc") == 479470107 % 12


@given(
    st.tuples(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1)),
    st.tuples(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1)),
)
def test_made_ids_sort_as_they_were_made(one: tuple[int, int], two: tuple[int, int]) -> None:
    """The order of ids is the order of (milliseconds, random), so ids of a later millisecond are greater."""
    assert (made_id("req", uuid7(*one)) < made_id("req", uuid7(*two))) == (one < two)


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**80))
def test_a_uuid7_is_one(unix_ms: int, random: int) -> None:
    """48 bits of time, version 7, variant 10."""
    uuid = uuid7(unix_ms, random)
    assert uuid >> 80 == unix_ms
    assert uuid >> 76 & 15 == 7
    assert uuid >> 62 & 3 == 2
    assert uuid < 2**128


def test_a_made_id_has_a_prefix_and_26_characters() -> None:
    """The least and the greatest id have the same length."""
    assert made_id("key", 0) == "key_" + "0" * 26
    assert made_id("key", 2**128 - 1) == "key_" + "7" + "z" * 25


@pytest.mark.parametrize("text", ["a", "0", "acme", "a-b-", "x" * 63])
def test_ids_that_people_may_choose(text: str) -> None:
    """Lower case letters, digits and '-', up to 63, not beginning with '-'."""
    assert chosen_id(text) == text


@pytest.mark.parametrize("text", ["", "-a", "A", "a_b", "a.b", "ä", "a\n", " a", "x" * 64, "a/b", "_"])
def test_other_ids_are_refused_by_field(text: str) -> None:
    """Everything else is `Invalid`, naming the field."""
    with pytest.raises(Invalid) as raised:
        chosen_id(text, "budget")
    assert raised.value.errors[0].field == "budget"
