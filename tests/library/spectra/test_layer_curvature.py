from __future__ import annotations

import copy

import pytest
import torch
from nets import Case, cases, dense_loss

from loss_landscape import LossSurface
from loss_landscape.spectra.layers import layer_curvature

ALL = {case.name: case for case in cases()}


def surface_and_hessian(name: str) -> tuple[LossSurface, torch.Tensor]:
    case = copy.deepcopy(ALL[name])
    case = Case(name, case.model.eval(), case.loss_fn, case.batches)
    surface = LossSurface(case.model, case.loss_fn, case.batches)
    return surface, torch.func.hessian(lambda vector: dense_loss(case, surface.layout.names, vector))(surface.origin)


@pytest.mark.parametrize("name", ["cross_entropy", "conv", "tied"])
def test_each_row_is_a_diagonal_block_of_the_dense_hessian(name):
    surface, hessian = surface_and_hessian(name)
    rows = layer_curvature(surface, tolerance=1e-8)
    expected = {"cross_entropy": ["0", "2"], "conv": ["0", "1", "5"], "tied": ["first", "head"]}[name]
    assert [row.name for row in rows] == expected
    assert sum(row.num_parameters for row in rows) == surface.size
    start = 0
    for row in rows:
        block = hessian[start : start + row.num_parameters, start : start + row.num_parameters]
        start += row.num_parameters
        values = torch.linalg.eigvalsh(block)
        assert row.top_eigenvalue == pytest.approx(float(values[-1]), rel=1e-7)
        assert row.trace.value == pytest.approx(float(block.trace()), rel=1e-9)
        assert row.trace.standard_error == 0
        assert row.converged
        assert row.residual <= 1e-8


def test_patterns_choose_the_rows():
    surface, hessian = surface_and_hessian("cross_entropy")
    rows = layer_curvature(surface, ["*.weight", "2.*"], tolerance=1e-8)
    weights = torch.tensor([*range(30), *range(35, 50)])
    blocks = [hessian[weights][:, weights], hessian[35:, 35:]]
    assert [(row.name, row.num_parameters) for row in rows] == [("*.weight", 45), ("2.*", 18)]
    for row, block in zip(rows, blocks, strict=True):
        assert row.top_eigenvalue == pytest.approx(float(torch.linalg.eigvalsh(block)[-1]), rel=1e-7)
    with pytest.raises(ValueError, match="no parameter matches 'conv"):
        layer_curvature(surface, ["conv*"])


def test_a_trace_of_few_products_has_a_standard_error():
    surface, hessian = surface_and_hessian("cross_entropy")
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)
        first, second = layer_curvature(surface, num_products=10, generator=draw)
        for row, block in ((first, hessian[:35, :35]), (second, hessian[35:, 35:])):
            assert row.trace.standard_error > 0
            assert abs(row.trace.value - float(block.trace())) < 5 * row.trace.standard_error


def test_parameters_whose_names_are_globs_or_that_the_net_owns_itself_are_rows_of_their_own():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(6))
            self.layers = torch.nn.ModuleDict({"a[b]": torch.nn.Linear(6, 3), "ab": torch.nn.Linear(6, 3, bias=False)})

        def forward(self, x):
            return self.layers["a[b]"](x * self.scale) + self.layers["ab"](x)

    case = ALL["cross_entropy"]
    rows = layer_curvature(LossSurface(Odd().double(), case.loss_fn, case.batches), num_products=4)
    assert [(row.name, row.num_parameters) for row in rows] == [("scale", 6), ("layers.a[b]", 21), ("layers.ab", 18)]
