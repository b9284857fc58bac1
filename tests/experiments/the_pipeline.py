"""The pipeline's script as a module, and its smallest plan."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "experiments" / "Hessian_and_landscape_plot_with_plasticity_loss"

TINY = (
    "data=digits", "data.train_size=160", "data.test_size=40", "net=mlp", "net.width=8", "batch_size=32", "lla.training.lr=0.2",
    "lla.training.max_checkpoints=7", "lla.evaluation_data.eval_batch_size=64", "lla.planes.grid_resolution=5",
    "lla.spectrum.top_k=2", "lla.spectrum.hutchinson_probes=4", "lla.spectrum.esd.num_probes=2",
    "lla.spectrum.esd.lanczos_steps=6", "lla.mode_connectivity.curve_points=5", "lla.mode_connectivity.opt_steps=3",
    "lla.runtime.workers=1", "lla.runtime.device=cpu",
)  # fmt: skip
"""Every block once, as small as it gets."""

PLAIN = (*TINY, "lla.logging.save_plots=false")
"""The same without pictures."""


def script(name: str) -> ModuleType:
    """A script of the experiment's folder, imported."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
