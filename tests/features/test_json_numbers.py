"""Numbers of JSON against Python's own reading of them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.json_numbers import read_number

FORM = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?\Z")
_BITS = np.zeros(1, np.int64)
_NUMBER = _BITS.view(np.float64)


def read(text: str) -> float | None:
    """Return the number that a text is as a whole."""
    data = np.frombuffer(text.encode(), np.uint8)
    end = read_number(data, 0, len(data), _BITS, _NUMBER)
    return float(_NUMBER[0]) if end == len(data) else None


DECIMAL = st.builds(
    "{}{}.{}e{}".format, st.sampled_from(["", "-"]), st.integers(0, 10**12), st.integers(0, 10**7), st.integers(-50, 50)
)
SMALL = st.builds("0.{}{}".format, st.sampled_from(["", "0", "00000", "0" * 20]), st.integers(0, 2**63))
HALFWAY = st.builds(lambda m, s: str((2 * m + 1) << s), st.integers(2**52, 2**53 - 1), st.integers(0, 9))
TENTHS = st.builds("{}e-{}".format, st.integers(1, 2**63), st.integers(1, 25))


@settings(max_examples=1500, deadline=None)
@given(DECIMAL | SMALL | HALFWAY | TENTHS | st.floats(allow_nan=False, allow_infinity=False).map(repr))
@example("85367252323014355e-1")
@example("9007199254740993")
@example("-0.0")
def test_it_is_the_nearest_double_or_undecided(text: str) -> None:
    found = read(text)
    assert found is None or str(found) == str(float(text))
    digits = re.sub(r"e.*", "", text).replace(".", "").lstrip("-0")
    power = int((re.findall(r"e([+-]?\d+)", text) or ["0"])[0])
    if len(digits) <= 17 and abs(power) <= 30:
        assert found is not None, "what sensors send is decided"


@settings(max_examples=1000, deadline=None)
@given(st.text("0123456789.eE+-", max_size=9))
def test_it_takes_what_json_takes(text: str) -> None:
    found = read(text)
    assert found is None or FORM.match(text) is not None
    assert found is None or found == float(text)


@pytest.mark.parametrize("text", ["", "-", "+1", "01", "1.", ".5", "1e", "1e+", "nan", "--1", "1e400", "1e-400"])
def test_what_is_no_number(text: str) -> None:
    assert read(text) is None
