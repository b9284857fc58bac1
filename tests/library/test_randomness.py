"""One meaning of `generator=` everywhere: a generator, a seed, or the default."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loss_landscape import MatrixOperator, trace
from loss_landscape.randomness import generator_from


def test_a_seed_is_a_generator_seeded_with_it():
    drawn = torch.rand(5, generator=generator_from(7))
    assert torch.equal(drawn, torch.rand(5, generator=torch.Generator().manual_seed(7)))
    assert torch.equal(drawn, torch.rand(5, generator=generator_from(np.int64(7))))


def test_none_is_seed_zero():
    assert torch.equal(torch.rand(5, generator=generator_from(None)), torch.rand(5, generator=generator_from(0)))


def test_a_generator_is_used_as_it_is():
    given = torch.Generator().manual_seed(1)
    assert generator_from(given) is given


def test_public_functions_take_a_seed():
    matrix = torch.randn(40, 40, generator=torch.Generator().manual_seed(3))
    operator = MatrixOperator(matrix + matrix.T)
    seeded = trace(operator, num_products=6, generator=7)
    assert seeded == trace(operator, num_products=6, generator=torch.Generator().manual_seed(7))
    assert seeded != trace(operator, num_products=6)


@pytest.mark.parametrize("given", [1.5, "0", True])
def test_anything_else_is_refused(given):
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, a seed \(int\) or None"):
        generator_from(given)
