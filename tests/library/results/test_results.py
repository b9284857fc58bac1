"""Results become arrays, files and tables, and come back the same; what they say of themselves is short."""

from __future__ import annotations

import builtins
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from surfaces import surface_of

from loss_landscape import (
    Density,
    DiagonalEstimate,
    Eigenpairs,
    Estimate,
    LayerCurvatures,
    MatrixOperator,
    diagonal,
    eigenpairs,
    layer_curvature,
    spectral_density,
    trace,
)
from loss_landscape.files import write_arrays
from loss_landscape.results.result import Result

MATRIX = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0, -0.5, -1.0], dtype=torch.float64)) + 0.1


def results() -> dict[str, Result]:
    operator = MatrixOperator(MATRIX)
    return {
        "Estimate": trace(operator, num_products=4),
        "exact Estimate": trace(operator),
        "DiagonalEstimate": diagonal(operator, 4),
        "Eigenpairs": eigenpairs(operator, 2, 1, tolerance=1e-8),
        "Density": spectral_density(operator, 3, 4),
        "LayerCurvatures": layer_curvature(surface_of(), num_products=10),
    }


@pytest.mark.parametrize("name", results())
def test_a_result_comes_back_from_its_file_with_the_same_bits(name, tmp_path):
    result = results()[name]
    result.save(tmp_path / "new" / "result")
    again = type(result).load(tmp_path / "new" / "result")
    before, after = result.to_arrays(), again.to_arrays()
    assert before.keys() == after.keys()
    for key, array in before.items():
        assert array.dtype == after[key].dtype, key
        np.testing.assert_array_equal(after[key], array)
    assert repr(again) == repr(result)


def test_what_comes_back_can_do_what_it_could(tmp_path):
    pairs, density = results()["Eigenpairs"], results()["Density"]
    pairs.save(tmp_path / "pairs.npz")
    density.save(tmp_path / "density.npz")
    assert torch.equal(Eigenpairs.load(tmp_path / "pairs.npz").select(1, 1).values, pairs.select(1, 1).values)
    assert Density.load(tmp_path / "density.npz").trace == density.trace


def test_bfloat16_vectors_are_kept_as_float32():
    vectors = torch.ones(3, 1, dtype=torch.bfloat16)
    pairs = Eigenpairs(torch.ones(1), vectors, torch.zeros(1), torch.ones(1, dtype=torch.bool), 1, 1)
    assert pairs.to_arrays()["vectors"].dtype == np.float32


def test_a_file_of_another_result_is_refused(tmp_path):
    results()["Density"].save(tmp_path / "density.npz")
    with pytest.raises(ValueError, match=r"density.npz holds .*Density.*, not .*Estimate"):
        Estimate.load(tmp_path / "density.npz")


def test_a_result_of_another_version_is_told(tmp_path):
    write_arrays(tmp_path / "old.npz", {"value": np.array(1.0)}, {"result": "Estimate"})
    with pytest.raises(ValueError, match=r"old\.npz holds Estimate of another version: KeyError\('standard_error'\)"):
        Estimate.load(tmp_path / "old.npz")


@pytest.mark.parametrize("name", results())
def test_a_repr_is_short_and_tells_the_numbers(name):
    assert len(repr(results()[name])) < 120


def test_the_repr_of_a_density():
    nodes, weights = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    assert repr(Density(nodes, weights, 4, 0.0)) == "Density(P=4, 2 probes of 2 nodes, 1 … 3, trace 9 ± 3)"


def test_reprs():
    told = {name: repr(result) for name, result in results().items()}
    lowest, *_, second, highest = np.linalg.eigvalsh(MATRIX.numpy())
    assert told["Eigenpairs"].startswith(f"Eigenpairs(top {highest:.3g}, {second:.3g}; bottom {lowest:.3g}; ")
    assert told["Eigenpairs"].endswith("products, verified)")
    assert told["exact Estimate"] == "Estimate(9.1 ± 0, 6 samples)"
    assert told["DiagonalEstimate"].startswith("DiagonalEstimate(P=6, -0.")
    assert "4 samples, errors up to 0." in told["DiagonalEstimate"]
    assert told["LayerCurvatures"].startswith("LayerCurvatures(2 layers, the sharpest ")
    unsure = eigenpairs(MatrixOperator(torch.diag(torch.linspace(0, 1, 300))), 6, tolerance=1e-9, max_products=12)
    assert repr(unsure).endswith("…; 12 products, 6 not converged)")


class TestTables:
    """Without pandas: a stand-in takes the columns."""

    @pytest.fixture(autouse=True)
    def _pandas(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict))

    def test_pairs(self):
        table = results()["Eigenpairs"].to_pandas()
        assert table["end"] == ["top", "top", "bottom"]
        np.testing.assert_allclose(table["value"], np.linalg.eigvalsh(MATRIX.numpy())[[-1, -2, 0]])
        assert table["converged"].all()

    def test_a_diagonal(self):
        estimate = DiagonalEstimate(torch.tensor([1.0, 2.0]), torch.tensor([0.1, 0.2]), 5)
        table = estimate.to_pandas()
        np.testing.assert_array_equal(table["value"], estimate.values.numpy())
        np.testing.assert_array_equal(table["standard_error"], estimate.standard_errors.numpy())

    def test_a_density_has_a_row_for_each_node_in_use(self):
        nodes, weights = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.5, 0.5], [1.0, 0.0]])
        table = Density(nodes, weights, 2, 0.0).to_pandas()
        assert {name: column.tolist() for name, column in table.items()} == {
            "probe": [0, 0, 1],
            "node": [1.0, 2.0, 3.0],
            "weight": [0.5, 0.5, 1.0],
        }

    def test_layers(self):
        rows = results()["LayerCurvatures"]
        table = rows.to_pandas()
        assert table["name"].tolist() == [row.name for row in rows]
        assert table["trace_value"].tolist() == [row.trace.value for row in rows]


def test_a_missing_pandas_is_told(monkeypatch):
    original = builtins.__import__

    def without_pandas(name: str, *rest: object) -> object:
        if name == "pandas":
            raise ImportError("no pandas")
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    with pytest.raises(ImportError, match="to_pandas needs pandas: pip install pandas"):
        results()["Eigenpairs"].to_pandas()


def test_layers_are_a_sequence():
    rows = results()["LayerCurvatures"]
    assert len(rows) == 2
    assert rows[0].name == "0"
    assert rows[-1:] == (rows[1],)
    assert [row.name for row in rows] == ["0", rows[1].name]
    assert repr(LayerCurvatures([])) == "LayerCurvatures(no layer)"


class TestSamples:
    def test_an_estimate_is_the_mean_of_its_samples(self):
        for method in ("hutchinson", "hutch++", "xtrace"):
            estimate = trace(MATRIX.repeat(10, 10) / 100, method, num_products=24)
            assert len(estimate.samples) == estimate.num_samples
            assert float(estimate.samples.mean()) == pytest.approx(estimate.value, rel=1e-12)

    def test_an_exact_value_has_none(self):
        assert results()["exact Estimate"].samples is None

    def test_they_are_no_part_of_equality(self):
        one = results()["Estimate"]
        assert one == Estimate(one.value, one.standard_error, one.num_samples)

    def test_a_root_keeps_those_of_the_square(self):
        root = Estimate.from_samples(torch.tensor([3.0, 5.0])).root()
        assert root.value == 2.0
        assert root.samples.tolist() == [3.0, 5.0]

    def test_a_multiple_has_them_multiplied(self):
        estimate = Estimate.from_samples(torch.tensor([3.0, 5.0])).times(2.0)
        assert (estimate.value, estimate.standard_error) == (8.0, 2.0)
        assert estimate.samples.tolist() == [6.0, 10.0]
