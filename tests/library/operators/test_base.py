"""What every operator can, and what users of other tools try first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nets import mlp
from surfaces import surface_of
from torch import Tensor

from loss_landscape import (
    CurvatureOperator,
    FunctionOperator,
    HessianOperator,
    MatrixOperator,
    diagonal,
    eigenpairs,
    frobenius_norm,
    largest_magnitude_eigenpairs,
    spectral_density,
    trace,
    trace_and_frobenius_norm,
)

MATRIX = torch.tensor([[2.0, 1.0, 0.5], [1.0, -3.0, 0.0], [0.5, 0.0, 1.0]])


def test_rows_and_columns_are_the_matrixs():
    operator = MatrixOperator(MATRIX)
    assert operator.shape == (3, 3)
    assert torch.equal(operator.columns([2, 0]), MATRIX[:, [2, 0]])
    assert torch.equal(operator.columns(torch.tensor([-1])), MATRIX[:, [-1]])
    assert torch.equal(operator.columns(np.array([0, 2])[::-1]), MATRIX[:, [2, 0]])
    assert torch.equal(operator.rows([1]), MATRIX[[1]])
    assert operator.columns([]).shape == (3, 0)
    assert operator.num_products == 6
    for index in ([3], [-4]):
        with pytest.raises(IndexError, match="expected indices from 0 to 2"):
            operator.columns(index)


def test_arrays_of_numpy_are_multiplied():
    product = MatrixOperator(MATRIX) @ np.ones((3, 2))
    torch.testing.assert_close(product, MATRIX.sum(dim=1, keepdim=True).expand(3, 2))
    with pytest.raises(TypeError, match=r"expected a tensor or an array \[P\] or \[P, K\] with P = 3, got list"):
        MatrixOperator(MATRIX) @ [1.0, 2.0, 3.0]


MATRICES = {
    "not symmetric": (torch.tensor([[0.0, 1.0], [0.0, 0.0]]), "expected a symmetric matrix"),
    "complex": (torch.eye(2, dtype=torch.complex64), "expected a real matrix, got a complex one"),
    "empty": (torch.ones(0, 0), r"expected a square matrix, got \[0, 0\]"),
    "not square": (np.ones((3, 2)), r"expected a square matrix, got \[3, 2\]"),
}


@pytest.mark.parametrize(("matrix", "sentence"), MATRICES.values(), ids=MATRICES)
def test_what_is_no_symmetric_matrix_is_refused(matrix, sentence):
    with pytest.raises(ValueError, match=sentence):
        MatrixOperator(matrix)


@pytest.mark.parametrize("matrix", [np.diag([3.0, 1.0]), np.diag([3, 1]), torch.diag(torch.tensor([3, 1]))])
def test_a_matrix_may_be_numpys_or_of_integers(matrix):
    assert MatrixOperator(matrix).dtype.is_floating_point
    assert eigenpairs(matrix, top=1).values.item() == pytest.approx(3.0)


STARTS = {"list": ([1.0, 0.0, 0.0], "got list"), "pairs": (eigenpairs(MATRIX), r"got Eigenpairs; give its \.vectors")}


@pytest.mark.parametrize(("start", "told"), STARTS.values(), ids=STARTS)
def test_a_start_is_a_tensor_or_an_array(start, told):
    expected = eigenpairs(MATRIX, start=torch.tensor([1.0, 0.0, 0.0]))
    assert torch.equal(eigenpairs(MATRIX, start=np.array([1.0, 0.0, 0.0])).values, expected.values)
    with pytest.raises(TypeError, match=rf"start must be a tensor \[P\] or \[P, k\], {told}"):
        eigenpairs(MATRIX, start=start)


def test_a_tensor_for_each_parameter_goes_by_name():
    operator = HessianOperator(surface_of())
    with pytest.raises(TypeError, match=r"by name, got a list; with names it is dict\(zip\(operator\.surface\.layout\.names"):
        operator @ [torch.ones(shape) for shape in operator.surface.layout.shapes]


def test_a_repr_tells_size_kind_and_place():
    assert repr(MatrixOperator(MATRIX)) == "MatrixOperator(P=3, float32, cpu)"


class Bare(CurvatureOperator):
    def __init__(self) -> None:
        self.factor = 2.0

    def matmat(self, vectors: Tensor) -> Tensor:
        return self.factor * vectors


def test_an_operator_that_forgot_its_base_is_told():
    with pytest.raises(AttributeError, match=r"Bare.__init__ must first call super\(\).__init__\(size, dtype, device\)"):
        eigenpairs(Bare())
    with pytest.raises(AttributeError, match="'Bare' object has no attribute 'nothing'"):
        Bare().nothing  # noqa: B018


ALGORITHMS = {
    "eigenpairs": lambda given: eigenpairs(given, 3).values.tolist(),
    "largest_magnitude_eigenpairs": lambda given: largest_magnitude_eigenpairs(given, 3).values.tolist(),
    "trace": lambda given: trace(given),
    "frobenius_norm": lambda given: frobenius_norm(given),
    "trace_and_frobenius_norm": lambda given: trace_and_frobenius_norm(given),
    "diagonal": lambda given: diagonal(given).values.tolist(),
    "spectral_density": lambda given: spectral_density(given, 2, 3).trace,
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_square_tensors_and_arrays_serve_as_operators(name):
    analyse = ALGORITHMS[name]
    expected = analyse(MatrixOperator(MATRIX))
    assert analyse(MATRIX) == expected
    assert analyse(MATRIX.numpy()) == expected


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize(
    ("given", "kind"), [(mlp(), r"a net \(Sequential\)"), (surface_of(), "a LossSurface"), (lambda vector: vector, "a function")]
)
def test_what_is_no_operator_is_answered_with_what_to_write(name, given, kind):
    with pytest.raises(TypeError, match=rf"got {kind}; write HessianOperator\(surface\).*FunctionOperator\(function, size=P\)"):
        ALGORITHMS[name](given)


class TestFunctions:
    def test_it_is_the_functions_matrix(self):
        operator = FunctionOperator(lambda vector: MATRIX @ vector, size=3)
        torch.testing.assert_close(operator @ torch.eye(3), MATRIX)
        torch.testing.assert_close(operator @ torch.ones(3), MATRIX.sum(dim=1))
        assert (operator @ torch.zeros(3, 0)).shape == (3, 0)

    def test_the_function_is_given_the_operators_dtype(self):
        seen = []
        operator = FunctionOperator(lambda vector: seen.append(vector.dtype) or vector, size=3, dtype=torch.float64)
        assert (operator @ torch.ones(3)).dtype == torch.float64
        assert set(seen) == {torch.float64}

    def test_a_function_that_writes_into_its_argument_changes_nobodys_vectors(self):
        operator, vector = FunctionOperator(lambda given: given.mul_(MATRIX.diag()), size=3), torch.ones(3)
        assert torch.equal(operator @ vector, MATRIX.diag())
        assert torch.equal(vector, torch.ones(3))
        assert eigenpairs(operator, 2, 1).values.tolist() == pytest.approx([2.0, 1.0, -3.0])

    def test_what_is_no_function_is_told(self):
        with pytest.raises(TypeError, match=r"expected a function of a vector, got a Tensor; MatrixOperator\(matrix\) is that"):
            FunctionOperator(MATRIX, size=3)

    def test_it_has_eigenpairs(self):
        operator = FunctionOperator(lambda vector: MATRIX.double() @ vector, size=3, dtype=torch.float64)
        values = np.linalg.eigvalsh(MATRIX.double().numpy())
        np.testing.assert_allclose(eigenpairs(operator, 3).values.flip(0), values, rtol=1e-10)

    def test_one_that_is_not_symmetric_is_refused_unless_told_otherwise(self):
        shift = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        with pytest.raises(ValueError, match="the function's matrix is not symmetric: uᵀHv = "):
            FunctionOperator(lambda vector: shift @ vector, size=2)
        assert torch.equal(FunctionOperator(lambda vector: shift @ vector, size=2, check_symmetry=False) @ torch.eye(2), shift)

    @pytest.mark.parametrize(("given", "told"), [(lambda v: v[:1], r"\[1\]"), (lambda v: 0.0, "float")])
    def test_one_that_gives_another_shape_is_told(self, given, told):
        with pytest.raises(
            ValueError, match=rf"the function must give a tensor \[P\] for a vector \[P\], P = 2, but gave {told}"
        ):
            FunctionOperator(given, size=2)
