"""Results built by hand, to be drawn."""

import numpy as np
import torch

from loss_landscape import Density, Grid, PathLosses


def plane(loss, *, low=-1.0, high=1.0, resolution=11, kind="random", **more):
    """A grid of `loss(alpha, beta)`, its second axis half as long as its first and with fewer cells."""
    alpha, beta = np.linspace(low, high, resolution), np.linspace(low / 2, high / 2, resolution - 4)
    losses = np.asarray(loss(*np.meshgrid(alpha, beta, indexing="ij")), dtype=np.float64)
    meta = {
        "kind": kind,
        "direction_norms": [2.0, 5.0],
        "origin_norm": 10.0,
        "baseline_loss": float(loss(0.0, 0.0)),
        "noise_floor": 1e-8,
    }
    return Grid(losses, (alpha, beta), meta | more)


def slanted(alpha, beta):
    return 2.0 + alpha + 10.0 * (beta > 0.2)


def volume(loss, *, resolution=5, kind="random", **more):
    """A grid of `loss(alpha, beta, gamma)`, each axis half as long as the one before."""
    axes = tuple(np.linspace(-length, length, resolution) for length in (1.0, 0.5, 0.25))
    losses = np.asarray(loss(*np.meshgrid(*axes, indexing="ij")), dtype=np.float64)
    meta = {"kind": kind, "direction_norms": [2.0, 5.0, 4.0], "origin_norm": 10.0, "baseline_loss": 0.5, "noise_floor": 1e-8}
    return Grid(losses, axes, meta | more)


def density_of(nodes, weights, size=100):
    return Density(torch.tensor(nodes, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64), size, 1e-6)


def path_of(losses, kind="line", num_control_points=2, length=2.0):
    losses = np.array(losses, dtype=np.float64)
    t = np.linspace(0.0, 1.0, len(losses))
    return PathLosses(t, losses, length * t, {"kind": kind, "num_control_points": num_control_points, "origin_norm": 4.0})
