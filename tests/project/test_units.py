import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcut.errors import UsageError
from graphcut.units import MIB, format_budget, format_bytes, parse_bytes, parse_range


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("7MiB", 7 * 2**20),
        ("7 MiB", 7 * 2**20),
        (" 7mib ", 7 * 2**20),
        ("7MB", 7_000_000),
        ("512KiB", 512 * 1024),
        ("512kB", 512_000),
        ("512KB", 512_000),
        ("1GiB", 2**30),
        ("1GB", 10**9),
        ("6.5MiB", 6_815_744),
        (".5MiB", 2**19),
        ("7.MiB", 7 * 2**20),
        ("0.1MiB", 104_857),
        ("7340032", 7_340_032),
        ("7340032B", 7_340_032),
        ("7340032.0", 7_340_032),
        ("+7MiB", 7 * 2**20),
        ("1B", 1),
        ("1024", 1024),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("7M", "7MiB or 7MB"),
        ("7k", "7KiB or 7KB"),
        ("1.5G", "1.5GiB or 1.5GB"),
        ("7", "did you mean 7MiB. Write 7B for bytes"),
        ("1023", "did you mean 1023MiB"),
        ("", "is not a size"),
        ("MiB", "is not a size"),
        ("seven", "is not a size"),
        ("nan", "is not a size"),
        ("inf", "is not a size"),
        ("7,5MiB", "is not a size"),
        ("1e6", "is not a size"),
        ("7 Mi B", "is not a size"),
        ("7MiBs", "unknown unit"),
        ("7Mbit", "unknown unit"),
        ("\u0667MiB", "is not a size"),
        ("1.5", "integer number of bytes"),
        ("0", "not positive"),
        ("0.0MiB", "not positive"),
        ("0.0000001KiB", "not positive"),
        ("-7MiB", "not positive"),
        ("99999999GiB", "too large"),
        ("9" * 6000, "too large"),
    ],
)
def test_nonsense_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as raised:
        parse_bytes(text)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 200


def test_ranges_are_read() -> None:
    assert parse_range("2MiB..6MiB") == (2 * MIB, 6 * MIB)
    assert parse_range(" 0.5 MiB .. 1.5MB ") == (MIB // 2, 1_500_000)
    assert parse_range("2048..4096") == (2048, 4096)


@pytest.mark.parametrize(
    "text", ["6MiB", "6MiB..2MiB", "2MiB..2MiB", "..6MiB", "2MiB..", "2..6MiB", "a..b", "-1B..2B", ""]
)
def test_bad_ranges_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_range(text)


def test_sizes_are_shown_for_people() -> None:
    assert format_bytes(7_324_000) == "6.985 MiB"
    assert format_bytes(812) == "812 B"
    assert format_bytes(12_800) == "12.5 KiB"
    assert format_bytes(3 * 2**30) == "3.000 GiB"


@given(st.integers(min_value=1, max_value=2**40))
def test_a_shown_budget_is_enough_and_hardly_more(size: int) -> None:
    read = parse_bytes(format_budget(size))
    assert size <= read <= size * 1.002 + 2
