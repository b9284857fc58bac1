"""The number of threads follows from shapes and cores alone."""

import pytest
import torch
from runs import TINY, compose, run_in
from torch import nn

from taskshift import threads
from taskshift.run_folder import RunFolder
from taskshift.threads import WORTH_THREADS, fitting_threads


def linear(width):
    return nn.Sequential(nn.Linear(width, width), nn.Dropout(), nn.Linear(width, width)).train()


@pytest.mark.parametrize(("width", "batch_size", "count"), [(16, 256, 1), (1024, 16, 1), (1024, 48, 4), (1024, 256, 4)])
def test_small_batches_get_one_thread(width, batch_size, count, monkeypatch):
    """A linear layer takes 2 · in · out operations an example."""
    monkeypatch.setattr(threads, "OF_ITSELF", 4)
    assert (2 * 2 * width * width * batch_size >= WORTH_THREADS) == (count > 1)
    assert fitting_threads(linear(width), torch.zeros(1, width), batch_size) == count


def test_asking_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(threads, "OF_ITSELF", 4)
    net, before = linear(8), torch.get_rng_state()
    fitting_threads(net, torch.zeros(1, 8), 4)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in net.modules())


def test_a_run_writes_down_how_many_it_took(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "OF_ITSELF", 4)
    monkeypatch.setattr("taskshift.job.torch.set_num_threads", lambda count: None)
    quick = ["lla.enable_planes=false", "lla.enable_spectrum=false", "lla.enable_sam=false", "lla.enable_coupling=false"]
    words = [word for word in TINY if not word.startswith("num_threads")]
    folder = run_in(tmp_path, compose(*words, *quick, "num_tasks=1", "lla.enable_plasticity=false"))
    assert RunFolder(folder, "").known_run()["num_threads"] == 1
