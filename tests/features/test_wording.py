"""What the parser says of a class file becomes a sentence with the place, and what may stand there."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.signals import ClassFileError, load_class

LIFT = Path(__file__).parents[2] / "features/classes/lift.toml"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("[signals.motor_current]", "[signals.motor_current]\ncolour = 1"),
            "$.signals.motor_current: there is no key",
        ),
        (("[signals.motor_current]\n", "[signals.motor_current]\nunits = 1\n"), "`units`: did you mean `unit`?"),
        (("fails_at = 1.8", 'direction = "downwards"'), "indicators[0].direction: 'downwards' is none of down, up"),
        (("window_s = ", 'window_s = "long" #'), "$.window_s: expected a number, got 'long'"),
        (("window_s = ", "window_s = 1e9 #"), "$.window_s: expected a number of at most 86400, got 1000000000.0"),
        (("[detection]", "[detection]\ndetectors = []"), "expected a list of at least 1 entries, got an empty list"),
        (("[detection]", "[detections]"), "there is no key `detections`: did you mean `detection`?"),
    ],
)
def test_a_class_file_is_refused_in_the_words_of_its_author(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    text = LIFT.read_text().replace(change[0], change[1], 1)
    path = tmp_path / "lift.toml"
    path.write_text(text)
    with pytest.raises(ClassFileError) as refused:
        load_class(path)
    assert words in str(refused.value) and "\n" not in str(refused.value)
