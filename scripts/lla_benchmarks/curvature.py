"""Products with the Hessian, eigenpairs and spectral densities against other programs."""

from __future__ import annotations

import statistics
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from lla_benchmarks import operations, peers
from lla_benchmarks.lines import Agreement, Arithmetic, Case, Line, Peer
from lla_benchmarks.nets import CONVNET, Problem, next_task, trained
from lla_benchmarks.sizes import Sizes
from loss_landscape import Density, Eigenpairs, Estimate, HessianOperator, eigenpairs, spectral_density

TOP, BOTTOM, RESIDUAL = 5, 2, 1e-3
PATIENCE, MOST_ITERATIONS = (1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6), 1000
SAME_PRODUCT = 1e-4
GHOST = 1e-6  # nodes of one probe that are relatively nearer than this are one eigenvalue found twice


def products(sizes: Sizes) -> Case:
    """Products with the convnet's Hessian, on operators that stand."""
    problem = _problem(sizes)
    operator = HessianOperator(problem.surface())
    draw = torch.Generator().manual_seed(0)
    vectors = [torch.randn(operator.size, generator=draw).to(sizes.device) for _ in range(sizes.products)]

    def ours(number: int) -> list[Tensor]:
        return [operator @ vector for vector in vectors]

    def line(peer: Peer, make: peers.MakeProduct) -> Line:
        product = cache(partial(make, problem))  # made when it is first called, in the check

        def theirs(number: int) -> list[Tensor]:
            return [product()(vector) for vector in vectors]

        def check() -> Agreement:
            return _same_product(ours(0)[0], theirs(0)[0])

        def arithmetic() -> Arithmetic:
            return Arithmetic(len(vectors) * operations.hessian_product(problem), operations.counted(lambda: theirs(0)))

        work = f"{len(vectors)} products with the Hessian, {CONVNET.name}, batch {sizes.batch}"
        return Line(work, peer, ours, theirs, check, arithmetic)

    makers = (
        (peers.CURVLINOPS, peers.curvlinops_product),
        (peers.EIGENTHINGS, peers.eigenthings_product),
        (peers.PYHESSIAN, peers.pyhessian_product),
    )
    return Case([line(peer, make) for peer, make in makers], sizes.num_rounds)


def eigenvalues(sizes: Sizes) -> Case:
    """Both ends of the convnet's spectrum from the net on, each round with another seed of data and net."""
    ends = _Ends(sizes)
    return Case([ends.against_pyhessian(), ends.against_nearer_pyhessian(), ends.against_eigenthings()], len(ends.problems))


class _Ends:
    """The ends of a spectrum for each seed, by ours and by the peers; what a peer is to be given is found out in its check."""

    def __init__(self, sizes: Sizes):
        self.problems = [_problem(sizes, seed) for seed in range(sizes.num_seeds)]
        self.most_steps = sizes.most_steps
        seeds = f"{len(self.problems)} data seeds"
        self.work = f"top-{TOP} and bottom-{BOTTOM} eigenvalues, {CONVNET.name}, batch {sizes.batch}, {seeds}"

    def ours(self, number: int) -> Eigenpairs:
        return _pairs(HessianOperator(self.problems[number].surface()))

    def pyhessian(self, number: int) -> np.ndarray:
        return np.array(peers.pyhessian_operator(self.problems[number]).eigenvalues(top_n=TOP)[0])

    def nearer_pyhessian(self, number: int) -> np.ndarray:
        operator = peers.pyhessian_operator(self.problems[number])
        return np.array(operator.eigenvalues(MOST_ITERATIONS, self.tolerances[number], TOP)[0])

    def eigenthings(self, number: int) -> np.ndarray:
        return peers.eigenthings_ends(self.problems[number], self.steps[number], TOP, BOTTOM)

    @cached_property
    def tolerances(self) -> list[float]:
        """For each seed the first at which PyHessian's values are as near as the residual asked of ours."""
        return [self._tolerance(number) for number in range(len(self.problems))]

    def _tolerance(self, number: int) -> float:
        ours_first = self.ours(number).values[:TOP].numpy()
        for tolerance in PATIENCE:
            found = peers.pyhessian_operator(self.problems[number]).eigenvalues(MOST_ITERATIONS, tolerance, TOP)[0]
            if _largest_error(np.sort(found)[::-1], ours_first) <= RESIDUAL:
                break
        return tolerance

    @cached_property
    def steps(self) -> list[tuple[int, int]]:
        """For each seed the fewest steps at either end at which hessian-eigenthings is as near."""
        return [peers.eigenthings_steps(problem, TOP, BOTTOM, RESIDUAL, self.most_steps) for problem in self.problems]

    @cached_property
    def reference(self) -> tuple[np.ndarray, Eigenpairs]:
        """The first seed's ends by scipy, and by ours."""
        return exact_ends(self.problems[0]), self.ours(0)

    def against_pyhessian(self) -> Line:
        def remark(found: list[Eigenpairs], theirs: list[np.ndarray]) -> str:
            error = _largest_error(np.sort(theirs[0])[::-1], self.reference[0][:TOP])
            return f"{_products_told(found)}; the peer's {TOP} largest by size are up to {error:.2g} off"

        sums = partial(self._arithmetic, self.pyhessian)
        return Line(self.work, peers.PYHESSIAN, self.ours, self.pyhessian, self._check, sums, 3.0, remark)

    def against_nearer_pyhessian(self) -> Line:
        def check() -> Agreement:
            _ = self.tolerances  # found out before anything is timed
            return self._check()

        def remark(found: list[Eigenpairs], theirs: list[np.ndarray]) -> str:
            return f"the peer's tolerance is {', '.join(f'{tolerance:g}' for tolerance in self.tolerances)}"

        work = f"{self.work}, PyHessian's within {RESIDUAL:g} of the largest"
        sums = partial(self._arithmetic, self.nearer_pyhessian)
        return Line(work, peers.PYHESSIAN, self.ours, self.nearer_pyhessian, check, sums, remark=remark)

    def against_eigenthings(self) -> Line:
        def check() -> Agreement:
            _ = self.steps  # found out before anything is timed
            return self._check()

        def remark(found: list[Eigenpairs], theirs: list[np.ndarray]) -> str:
            given = ", ".join(f"{high} + {low}" for high, low in self.steps)
            error = _largest_error(theirs[0], self.reference[0])
            return f"{_products_told(found)}; the peer is given the fewest steps that do, {given}, and is up to {error:.2g} off"

        sums = partial(self._arithmetic, self.eigenthings)
        return Line(self.work, peers.EIGENTHINGS, self.ours, self.eigenthings, check, sums, 2.0, remark)

    def _check(self) -> Agreement:
        exact, pairs = self.reference
        return _none_missed(pairs.values.numpy(), exact)

    def _arithmetic(self, theirs: Any) -> Arithmetic:
        num_products = self.reference[1].num_products
        return Arithmetic(num_products * operations.hessian_product(self.problems[0]), operations.counted(lambda: theirs(0)))


def exact_ends(problem: Problem) -> np.ndarray:
    """The largest eigenvalues, descending, and the smallest, ascending, by scipy in float64 to a relative 1e-8."""
    operator = HessianOperator(problem.surface().in_dtype(torch.float64)).to_scipy()
    basis = min(128, operator.shape[0])  # scipy's own 20 would restart for hundreds of products
    find = partial(eigsh, operator, tol=1e-8, ncv=basis, return_eigenvectors=False)
    largest, smallest = find(k=TOP, which="LA"), find(k=BOTTOM, which="SA")
    return np.concatenate([np.sort(largest)[::-1], np.sort(smallest)])


def warm_start(sizes: Sizes) -> Case:
    """Both ends of the spectrum after the next task, from the last task's vectors and from nothing."""
    seeds = range(sizes.num_seeds)
    before = [_problem(sizes, seed) for seed in seeds]
    after = [HessianOperator(next_task(before[seed], CONVNET, sizes.num_steps, seed).surface()) for seed in seeds]

    @cache
    def last_vectors(number: int) -> Tensor:
        return _pairs(HessianOperator(before[number].surface())).vectors

    def warm(number: int) -> Eigenpairs:
        return _pairs(after[number], last_vectors(number))

    def cold(number: int) -> Eigenpairs:
        return _pairs(after[number])

    @cache
    def first() -> tuple[Eigenpairs, Eigenpairs]:
        for seed in seeds:
            last_vectors(seed)  # found before anything is timed
        return warm(0), cold(0)

    def check() -> Agreement:
        one, other = first()
        return Agreement(_largest_error(one.values.numpy(), other.values.numpy()), 2 * RESIDUAL, "of the largest eigenvalue")

    def arithmetic() -> Arithmetic:
        return Arithmetic(*(pairs.num_products * operations.hessian_product(before[0]) for pairs in first()))

    def remark(ours: list[Eigenpairs], theirs: list[Eigenpairs]) -> str:
        saved = [1 - one.num_products / other.num_products for one, other in zip(ours, theirs, strict=True)]
        counts = ", ".join(f"{one.num_products} for {other.num_products}" for one, other in zip(ours, theirs, strict=True))
        return f"products {counts}: {statistics.median(saved):.0%} fewer in the median"

    work = f"eigenvalues after the next task from the last one's vectors, {CONVNET.name}, batch {sizes.batch}"
    return Case([Line(work, peers.COLD, warm, cold, check, arithmetic, remark=remark)], len(before))


def density(sizes: Sizes) -> Case:
    """Stochastic Lanczos quadrature on the convnet, from the net to the nodes."""
    problem = _problem(sizes)
    num_products = sizes.probes * sizes.lanczos_steps

    def ours(number: int) -> Density:
        draw = torch.Generator().manual_seed(number)
        return spectral_density(HessianOperator(problem.surface()), sizes.probes, sizes.lanczos_steps, generator=draw)

    def theirs(number: int) -> tuple[Tensor, Tensor]:
        return peers.eigenthings_density(problem, sizes.probes, sizes.lanczos_steps, number)

    def vector() -> Tensor:
        size = sum(parameter.numel() for parameter in problem.net.parameters())
        return torch.randn(size, generator=torch.Generator().manual_seed(0)).to(sizes.device)

    def check() -> Agreement:
        return _same_product(HessianOperator(problem.surface()) @ vector(), peers.eigenthings_product(problem)(vector()))

    def arithmetic() -> Arithmetic:
        product = peers.eigenthings_product(problem)
        theirs = operations.counted(lambda: product(vector()))
        return Arithmetic(num_products * operations.hessian_product(problem), num_products * theirs)

    def remark(ours: list[Density], theirs: list[tuple[Tensor, Tensor]]) -> str:
        (nodes, weights), found = theirs[0], ours[0]
        other = Estimate.from_samples(found.size * (weights * nodes).nansum(dim=1))
        ghosts = num_ghosts(torch.where(found.weights > 0, found.nodes, torch.nan)), num_ghosts(nodes)
        return (
            f"traces {found.trace.value:.4g} ± {found.trace.standard_error:.2g} and {other.value:.4g} ± "
            f"{other.standard_error:.2g}; values found twice: {ghosts[0]} and {ghosts[1]}"
        )

    work = f"spectral density, {sizes.probes} probes × {sizes.lanczos_steps} steps, {CONVNET.name}, batch {sizes.batch}"
    return Case([Line(work, peers.EIGENTHINGS, ours, theirs, check, arithmetic, 1.7, remark)], sizes.slow_rounds)


def num_ghosts(nodes: Tensor) -> int:
    """How many nodes of a row [probes, m] repeat the one before them; NaN marks unused places."""
    ordered = nodes.sort(dim=1).values
    gaps = ordered.diff(dim=1)
    return int((gaps <= GHOST * ordered[:, 1:].abs()).sum())


def _problem(sizes: Sizes, seed: int = 0) -> Problem:
    return trained(CONVNET, sizes.batch, sizes.num_steps, sizes.device, seed)


def _pairs(operator: HessianOperator, start: Tensor | None = None) -> Eigenpairs:
    draw = torch.Generator().manual_seed(0)
    return eigenpairs(operator, top=TOP, bottom=BOTTOM, tolerance=RESIDUAL, generator=draw, start=start)


def _same_product(ours: Tensor, theirs: Tensor) -> Agreement:
    return Agreement(float((ours - theirs).norm() / theirs.norm()), SAME_PRODUCT, "of the product's norm")


def _none_missed(ours: np.ndarray, exact: np.ndarray) -> Agreement:
    error = _largest_error(ours, exact)
    told = f"ours against scipy's eigsh at 1e-8 in float64, first seed: {'none' if error <= RESIDUAL else 'some'} missed"
    return Agreement(error, RESIDUAL, "of the largest eigenvalue", told)


def _largest_error(values: np.ndarray, exact: np.ndarray) -> float:
    """Relative to the largest |eigenvalue|."""
    return float(np.max(np.abs(values - exact)) / np.max(np.abs(exact)))


def _products_told(found: list[Eigenpairs]) -> str:
    counts = [pairs.num_products for pairs in found]
    sure = all(bool(pairs.converged.all()) and pairs.verified for pairs in found)
    how = "all converged and verified" if sure else "not all of them converged and verified"
    return f"{min(counts)} to {max(counts)} products, {statistics.median(counts):g} in the median, verification included, {how}"
