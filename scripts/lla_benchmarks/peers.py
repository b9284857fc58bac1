"""The other programs, called as their own documentation says. A peer is imported when it is called."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lla_benchmarks.lines import Peer
from lla_benchmarks.nets import Problem

LOSS_LANDSCAPES = Peer("loss-landscapes", "loss_landscapes")
PYHESSIAN = Peer("PyHessian", "pyhessian")
EIGENTHINGS = Peer("hessian-eigenthings", "hessian_eigenthings")
CURVLINOPS = Peer("curvlinops", "curvlinops")
PLAIN_LOOP = Peer("the plain loop")
COLD = Peer("ours from a cold start")


# -- planes -----------------------------------------------------------------------------------------------------


def interpolated_plane(problem: Problem, directions: Sequence[Tensor], side: int) -> np.ndarray:
    """loss-landscapes on the cells of our grid of `side` cells a side over (−1, 1): its corner and its two end points are nets.

    It walks from cell to cell by adding the directions, and in even rows takes each step before it measures: `placed` mends that.
    """
    import loss_landscapes
    from loss_landscapes.metrics import Loss

    origin = torch.nn.utils.parameters_to_vector(problem.net.parameters()).detach()
    corner = origin - directions[0] - directions[1]
    step = 2 / (side - 1)
    nets = [_net_at(problem.net, corner + side * step * direction) for direction in directions]
    metric = Loss(nn.CrossEntropyLoss(), *problem.batch)
    return loss_landscapes.planar_interpolation(_net_at(problem.net, corner), *nets, metric, steps=side)


def random_plane(problem: Problem, side: int) -> np.ndarray:
    """loss-landscapes from the net to the plane, its random directions included."""
    import loss_landscapes
    from loss_landscapes.metrics import Loss

    metric = Loss(nn.CrossEntropyLoss(), *problem.batch)
    with problem.inputs.device:  # it draws on torch's default device
        return loss_landscapes.random_plane(problem.net, metric, 1, side, normalization="filter", deepcopy_model=True)


def placed(walked: np.ndarray) -> np.ndarray:
    """`interpolated_plane`'s losses where they belong; the first cell of even rows, which it never visits, is NaN."""
    mended = walked.copy()
    mended[0::2, 1:], mended[0::2, 0] = walked[0::2, :-1], np.nan
    return mended


def _net_at(net: nn.Module, point: Tensor) -> nn.Module:
    moved = copy.deepcopy(net)
    torch.nn.utils.vector_to_parameters(point, moved.parameters())
    return moved


class PlainLoop:
    """Sets the parameters of a net to one point of a plane after another, and calls the net."""

    def __init__(self, problem: Problem, directions: Sequence[Tensor]):
        self.net, self.criterion = copy.deepcopy(problem.net), nn.CrossEntropyLoss()
        self.inputs, self.targets = problem.batch
        self.parameters = list(self.net.parameters())
        sizes = [parameter.numel() for parameter in self.parameters]
        points = [torch.nn.utils.parameters_to_vector(self.parameters).detach(), *directions]
        columns = zip(*(point.split(sizes) for point in points), strict=True)
        self.parts = [
            [part.view_as(parameter) for part in column] for parameter, column in zip(self.parameters, columns, strict=True)
        ]

    @torch.no_grad()
    def plane(self, side: int) -> np.ndarray:
        """The losses of a grid over (−1, 1)."""
        return self._over(side, self._loss)

    def sam_plane(self, side: int, rho: float) -> np.ndarray:
        """The losses one ascent step of length `rho` away."""
        return self._over(side, lambda: self._ascended_loss(rho))

    def _over(self, side: int, value: Callable[[], float]) -> np.ndarray:
        axis = np.linspace(-1, 1, side).tolist()
        return np.array([[self._at(first, second, value) for second in axis] for first in axis])

    def _at(self, first: float, second: float, value: Callable[[], float]) -> float:
        with torch.no_grad():
            for parameter, (origin, one, two) in zip(self.parameters, self.parts, strict=True):
                parameter.copy_(origin).add_(one, alpha=first).add_(two, alpha=second)
        return value()

    def _loss(self) -> float:
        return self.criterion(self.net(self.inputs), self.targets).item()

    def _ascended_loss(self, rho: float) -> float:
        gradient = torch.autograd.grad(self.criterion(self.net(self.inputs), self.targets), self.parameters)
        with torch.no_grad():
            scale = rho / torch.sqrt(sum(part.square().sum() for part in gradient))
            for parameter, part in zip(self.parameters, gradient, strict=True):
                parameter.add_(scale * part)
            return self._loss()


# -- curvature --------------------------------------------------------------------------------------------------


Product = Callable[[Tensor], Tensor]
MakeProduct = Callable[[Problem], Product]


def pyhessian_operator(problem: Problem) -> Any:
    """PyHessian on a copy of the net, in whose .grad it leaves its graph."""
    import pyhessian

    net = copy.deepcopy(problem.net)
    return pyhessian.hessian(net, nn.CrossEntropyLoss(), data=problem.batch, cuda=problem.inputs.is_cuda)


def pyhessian_product(problem: Problem) -> Product:
    """The product that PyHessian iterates, from vectors [P] to vectors [P]."""
    from pyhessian.utils import hessian_vector_product

    operator = pyhessian_operator(problem)
    sizes = [parameter.numel() for parameter in operator.params]

    def product(vector: Tensor) -> Tensor:
        parts = [part.view_as(parameter) for part, parameter in zip(vector.split(sizes), operator.params, strict=True)]
        return torch.cat([part.flatten() for part in hessian_vector_product(operator.gradsH, operator.params, parts)])

    return product


def curvlinops_product(problem: Problem) -> Product:
    """Products with curvlinops' Hessian."""
    import curvlinops

    parameters, data = list(problem.net.parameters()), [problem.batch]
    operator = curvlinops.HessianLinearOperator(problem.net, nn.CrossEntropyLoss(), parameters, data, check_deterministic=False)
    return lambda vector: operator @ vector


def eigenthings_product(problem: Problem) -> Product:
    """Products with hessian-eigenthings' Hessian."""
    return eigenthings_operator(problem).matvec


def eigenthings_operator(problem: Problem) -> Any:
    """hessian-eigenthings' Hessian."""
    import hessian_eigenthings

    loss = hessian_eigenthings.supervised_loss(nn.CrossEntropyLoss())
    return hessian_eigenthings.HessianOperator(problem.net, [problem.batch], loss)


def eigenthings_density(problem: Problem, probes: int, steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """The nodes and weights [probes, steps] of hessian-eigenthings' spectral density."""
    import hessian_eigenthings

    found = hessian_eigenthings.spectral_density(eigenthings_operator(problem), num_runs=probes, lanczos_steps=steps, seed=seed)
    return found.raw_eigenvalues.double().cpu(), found.raw_weights.double().cpu()


def eigenthings_ends(problem: Problem, steps: tuple[int, int], top: int, bottom: int) -> np.ndarray:
    """Its `top` largest, then its `bottom` smallest eigenvalues, from so many Lanczos steps each, with reorthogonalisation."""
    import hessian_eigenthings

    operator = eigenthings_operator(problem)
    ends = [
        hessian_eigenthings.lanczos(operator, k=count, max_iter=many, which=which, reorthogonalize=True, seed=0).eigenvalues
        for count, many, which in ((top, steps[0], "LA"), (bottom, steps[1], "SA"))
    ]
    return torch.cat(ends).double().cpu().numpy()


def eigenthings_steps(problem: Problem, top: int, bottom: int, tolerance: float, most: int) -> tuple[int, int]:
    """The fewest Lanczos steps after which all its residuals are within `tolerance` of the largest |Ritz value|.

    It doesn't stop by itself. What it would have after fewer steps is read off one run of `most` steps from the same vector;
    where that isn't enough, all of them but one.
    """
    import hessian_eigenthings

    operator = eigenthings_operator(problem)
    start = torch.randn(operator.size, generator=torch.Generator().manual_seed(0)).to(operator.device)
    run = hessian_eigenthings.lanczos_tridiagonal(operator, start, most, reorthogonalize=True)
    diagonal, couplings = run.alphas.double().cpu(), run.betas.double().cpu()
    least, last = top + bottom, len(couplings)

    def good(steps: int) -> Tensor:
        between = couplings[: steps - 1]
        values, vectors = torch.linalg.eigh(torch.diag(diagonal[:steps]) + torch.diag(between, 1) + torch.diag(between, -1))
        return couplings[steps - 1] * vectors[-1].abs() <= tolerance * values.abs().max()

    def fewest(wanted: slice) -> int:
        return next((steps for steps in range(least, last) if bool(good(steps)[wanted].all())), last)

    return fewest(slice(-top, None)), fewest(slice(0, bottom))
