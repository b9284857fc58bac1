"""The text that the Writer was promised by: each of its code blocks runs as printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.optim import Adam
from torch.utils.data import DataLoader
from user_training import examples, loader_of, one_epoch, user_net

from loss_landscape import Explorer, LossLandscapeWriter

README = (Path(__file__).parent / "writer_readme.txt").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
ELIDED = {
    "sample_landscape(\n    ...,": "sample_landscape(\n    model, loader, loss_fn,",
    "_landscape(..., ": "_landscape(model, loader, loss_fn, ",
}
"""Where the text leaves out the arguments that it gave before."""


def is_python(block: str) -> bool:
    try:
        compile(block, "block", "exec")
    except SyntaxError:
        return False
    return True


RUNNABLE = [block for block in BLOCKS if is_python(block)]


def namespace(folder: Path) -> dict[str, Any]:
    """What the text takes for granted."""
    net, loader = user_net(), loader_of()
    trained = [one_epoch(net, loader) for _ in range(3)]
    writer, writer_a = LossLandscapeWriter(folder / "given"), LossLandscapeWriter(folder / "given_a")
    writer_b = LossLandscapeWriter(folder / "given_b")
    writer_a.sample_landscape(net, loader, F.cross_entropy, grid_size=3)
    for epoch in range(3):
        one_epoch(net, loader)
        writer.record_checkpoint(net, epoch, train_loss=trained[-1])
    return {
        **{"model": net, "model_a": user_net(seed=1), "model_b": user_net(seed=2), "F": F, "Adam": Adam},
        **{"Explorer": Explorer, "LossLandscapeWriter": LossLandscapeWriter},
        **{"loader": loader, "data_loader": loader, "dataset": examples(), "DataLoader": DataLoader, "loss_fn": F.cross_entropy},
        **{"writer": writer, "writer_a": writer_a, "writer_b": writer_b, "directions": writer_a.get_directions()},
        "train": lambda *_: one_epoch(net, loader),
        "train_one_epoch": lambda net, *_: one_epoch(net, loader),
        "compute_pde_residual": lambda net, inputs: net(inputs).square().mean(),
    }


def test_all_blocks_are_python_but_the_one_in_formulas():
    assert [block.split()[1] for block in BLOCKS if block not in RUNNABLE] == ["α"]
    assert len(RUNNABLE) >= 20


@pytest.mark.parametrize("block", RUNNABLE, ids=[" ".join(block.split()[:5]) for block in RUNNABLE])
def test_a_block_runs_as_printed(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for left_out, given in ELIDED.items():
        block = block.replace(left_out, given)
    if "F.mse_loss" in block:  # the physics-informed loss of a regression
        block = "model, loader = regression\n" + block
    names = {**namespace(tmp_path), "regression": regression()}
    exec(compile(block, "writer_readme.txt", "exec"), names)


def regression() -> tuple[torch.nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    inputs = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    return user_net(), [(inputs, inputs[:, :3])]
