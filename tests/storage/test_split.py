"""The split of an item depends only on its group."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from storage.split import in_half, split_u


def test_split_u_is_the_published_number() -> None:
    # split_u of a group is the number made of the first 53 bits of sha256("split" + group), divided by 2^53.
    import hashlib

    first = int.from_bytes(hashlib.sha256(b"split1f600").digest()[:8], "big")
    assert split_u("1f600") == (first >> 11) / 2**53


@given(st.text())
def test_split_u_is_in_the_unit_interval_and_repeats(group: str) -> None:
    assert 0 <= split_u(group) < 1
    assert split_u(group) == split_u(group)


def test_another_salt_gives_another_number() -> None:
    assert split_u("a") != split_u("a", "half")


def test_the_held_out_share_is_what_was_asked_for() -> None:
    held = sum(split_u(str(i)) < 0.2 for i in range(20_000)) / 20_000
    assert abs(held - 0.2) < 0.0085  # 3 standard deviations of a binomial share


def test_halves_are_disjoint_whole_and_independent_of_the_split() -> None:
    groups = [f"group {i}" for i in range(4000)]
    in_a = [in_half(group, "a") for group in groups]
    assert [in_half(group, "b") for group in groups] == [not a for a in in_a]
    # Each of 4,000 groups falls into one of two halves like a fair coin. The share of half a has the standard deviation
    # .008 among all groups, and .018 among the 20 % of the groups that are held out.
    assert abs(sum(in_a) / len(groups) - 0.5) < 0.04
    held = [a for group, a in zip(groups, in_a, strict=True) if split_u(group) < 0.2]
    assert abs(sum(held) / len(held) - 0.5) < 0.09
