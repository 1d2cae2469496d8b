"""Bytes and FLOPs as people write them: what is read, what is refused, what is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import UnitError, UsageError
from ckpt.units import (
    GIB,
    KIB,
    MIB,
    TIB,
    format_bytes,
    format_flops,
    format_seconds,
    parse_bytes,
)


def test_the_constants_are_powers_of_1024() -> None:
    assert (KIB, MIB, GIB, TIB) == (1024, 1_048_576, 1_073_741_824, 1_099_511_627_776)


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("7B", 7),
        ("1 byte", 1),
        ("7 bytes", 7),
        ("1kB", 1_000),
        ("1KiB", 1_024),
        ("1MB", 1_000_000),
        ("1MiB", 1_048_576),
        ("1GB", 1_000_000_000),
        ("1GiB", 1_073_741_824),
        ("1TB", 1_000_000_000_000),
        ("1TiB", 1_099_511_627_776),
    ],
)
def test_every_unit_is_read(text: str, nbytes: int) -> None:
    assert parse_bytes(text) == nbytes


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("64mib", 64 * 2**20),  # case doesn't matter
        ("64MIB", 64 * 2**20),
        ("  8 GB ", 8 * 10**9),  # nor do blanks
        ("1.5KiB", 1_536),
        (".5KiB", 512),
        ("2.KiB", 2_048),
        ("1e3B", 1_000),
        ("+2E-1kB", 200),
        ("1.9B", 1),  # part of a byte is no byte
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, nbytes: int) -> None:
    assert parse_bytes(text) == nbytes


def test_an_int_is_a_number_of_bytes() -> None:
    assert parse_bytes(1) == 1
    assert parse_bytes(2**70) == 2**70


@pytest.mark.parametrize(("text", "nbytes"), [("25%", 50), ("100%", 200), ("0.5 %", 1)])
def test_a_percentage_is_of_what_is_given(text: str, nbytes: int) -> None:
    assert parse_bytes(text, of=200) == nbytes


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (0, "must be positive, not 0"),
        (-5, "must be positive, not -5"),
        (True, "an int or a text such as '64MiB', not True"),
        (6.5, "an int or a text such as '64MiB', not 6.5"),
        (None, "an int or a text such as '64MiB', not None"),
        ("", "'' is no number of bytes; write for example '64MiB' or '25%'"),
        ("MiB", "'MiB' is no number"),
        ("64 Mi B", "'64 Mi B' is no number"),
        ("64MiB!", "'64MiB!' is no number"),
        ("x64MiB", "'x64MiB' is no number"),
        ("0x40B", "'0x40B' is no number"),
        ("64", "'64' has no unit; write '64MiB' or '64%'"),
        (" 64 ", "write '64MiB' or '64%'"),
        ("12 parsecs", "unknown unit 'parsecs' in '12 parsecs'; use B, KiB"),
        ("12 k", "unknown unit 'k'"),
        ("0MiB", "must be positive, not '0MiB'"),
        ("-1MiB", "must be positive, not '-1MiB'"),
        ("-1%", "must be positive, not '-1%'"),
        ("25%", "'25%' is a percentage, and there is nothing here to take it of"),
        ("0.9B", "'0.9B' is not a usable number of bytes"),
        ("1e999B", "'1e999B' is not a usable number of bytes"),
    ],
)
def test_what_is_no_number_of_bytes_is_refused_in_one_line(wrong: object, says: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse_bytes(wrong)  # type: ignore[arg-type]
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UsageError)


def test_a_percentage_ends_at_100() -> None:
    assert parse_bytes("100%", of=7) == 7
    with pytest.raises(UnitError, match="more than store-all needs; write at most '100%'"):
        parse_bytes("100.1%", of=7)


def test_the_smallest_usable_number_is_one_byte() -> None:
    assert parse_bytes("1B") == 1
    assert parse_bytes("0.001kB") == 1


def test_a_percentage_of_less_than_a_byte_is_refused() -> None:
    with pytest.raises(UnitError):  # 1 % of 50 bytes is half a byte
        parse_bytes("1%", of=50)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (10 * 1024 + 512, "10.5 KiB"),
        (100 * 1024 + 512, "100 KiB"),  # three digits, half to even
        (2**20, "1 MiB"),
        (2**30, "1 GiB"),
        (2**40, "1 TiB"),
        (5000 * 2**40, "5000 TiB"),
        (1_000_000, "977 KiB"),  # 976.56
        (1_300_000, "1.24 MiB"),  # 1.2398
        (-1536, "-1.5 KiB"),
        (-1, "-1 B"),
    ],
)
def test_bytes_are_shown_with_three_digits_in_iec_units(nbytes: int, text: str) -> None:
    assert format_bytes(nbytes) == text


@pytest.mark.parametrize(
    ("flops", "text"),
    [
        (0, "0 FLOP"),
        (999, "999 FLOP"),
        (1000, "1 kFLOP"),
        (1e6, "1 MFLOP"),
        (2.5e9, "2.5 GFLOP"),
        (1e12, "1 TFLOP"),
        (1e15, "1 PFLOP"),
        (1234, "1.23 kFLOP"),
        (12_340, "12.3 kFLOP"),
        (123_400, "123 kFLOP"),
    ],
)
def test_flops_are_shown_with_a_decimal_prefix(flops: float, text: str) -> None:
    assert format_flops(flops) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (90, "90 s"),
        (1, "1 s"),
        (0.5, "500 ms"),
        (0.0042, "4.2 ms"),
        (0.001, "1 ms"),
        (0.000_999, "999 µs"),
        (0.000_001_5, "1.5 µs"),
        (0, "0 µs"),
    ],
)
def test_seconds_are_shown_in_s_ms_and_microseconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@given(st.integers(1, 2**50))
def test_what_is_shown_reads_back_to_within_half_a_percent(nbytes: int) -> None:
    assert parse_bytes(format_bytes(nbytes)) == pytest.approx(nbytes, rel=0.005)


@given(st.integers(1, 100), st.integers(0, 2**50))
def test_a_share_is_never_more_than_the_whole(percent: int, of: int) -> None:
    if percent * of < 100:
        with pytest.raises(UnitError, match="not a usable number"):
            parse_bytes(f"{percent}%", of=of)
    else:
        assert 1 <= parse_bytes(f"{percent}%", of=of) <= of
