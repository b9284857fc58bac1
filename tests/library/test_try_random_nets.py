"""`scripts/try_random_nets.py`: seeds on which something was wrong once."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

from try_random_nets import failures

SEEDS = {
    "a summed squared error ended the process while its product was recorded": 1,
    "a weight-normed layer's wrong second derivative was refused": 21,
    "a padding's row that a convolution reads counted by differences, not as held fixed": 20030,
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS)
def test_what_was_wrong_is_right(seed):
    assert list(failures(seed)) == []
