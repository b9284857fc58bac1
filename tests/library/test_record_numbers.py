"""`scripts/record_numbers.py`: two records of the same code have the same bits, and whatever differs is told."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "scripts" / "record_numbers.py"
sys.path.append(str(SCRIPT.parent))

from number_records.record import Record, compared, difference  # noqa: E402


def saved(folder: Path, arrays: dict[str, np.ndarray], words: dict[str, str] | None = None) -> Path:
    Record(arrays, words or {}).save(folder, "net")
    return folder


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), None),
        (np.array([0.0]), np.array([-0.0]), "1 of 1 entries"),
        (np.array([1.0, 2.0]), np.array([1.0, np.nextafter(2.0, 3.0)]), "1 of 2 entries"),
        (np.array([np.nan]), np.array([-np.nan]), "1 of 1 entries"),
        (np.zeros(2), np.zeros((2, 1)), "float64 [2] became float64 [2, 1]"),
        (np.zeros(2), np.zeros(2, np.float32), "became float32"),
        (np.array(True), np.array(False), "1 of 1 entries"),
        (np.zeros((0, 2)), np.zeros((0, 2)), None),
    ],
)
def test_arrays_are_compared_by_dtype_shape_and_bits(one, other, told):
    assert difference(one, other) is None if told is None else told in difference(one, other)


def test_a_number_that_changed_and_one_that_is_gone_are_faults_and_words_are_not(tmp_path):
    before = saved(tmp_path / "before", {"a/losses": np.arange(3.0), "b": np.ones(2)}, {"a/path": "batched", "c/path": "batched"})
    after = saved(
        tmp_path / "after", {"a/losses": np.arange(3.0), "b": np.ones(2)}, {"a/path": "vectorized", "c/path": "vectorized"}
    )
    found = compared(before, after)
    assert not found.are_faults
    assert "2 × net: a/path: 'batched' → 'vectorized'" in found.report()

    found = compared(before, saved(tmp_path / "flipped", {"a/losses": np.array([0.0, 1.0, 2.0000000000000004]), "b": np.ones(2)}))
    assert found.are_faults
    assert "net: a/losses: 1 of 3 entries, the first np.float64(2.0) → np.float64(2.0000000000000004)" in found.report()

    assert compared(before, saved(tmp_path / "less", {"b": np.ones(2)})).lost == ["net: a/losses"]
    assert compared(before, saved(tmp_path / "less", {"b": np.ones(2)})).are_faults
    assert compared(tmp_path / "before", tmp_path / "nothing").are_faults


def test_two_processes_record_the_same_bits(tmp_path):
    for folder in ("one", "other"):
        command = [sys.executable, SCRIPT, "record", tmp_path / folder, "--only", "regression", "sharpness"]
        subprocess.run(command, check=True, capture_output=True)
    command = [sys.executable, SCRIPT, "compare", tmp_path / "one", tmp_path / "other"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, "arrays have the same bits, 0 are missing" in ended.stdout) == (0, True), ended.stdout
