"""Real images through the whole job. `scripts/prepare_data.py` puts them where TASKSHIFT_DATA (or ./data) says."""

import json

import numpy as np
import pytest
from runs import compose, run_in

from taskshift.run_folder import read_rows

pytestmark = pytest.mark.slow

SETTINGS = (
    "data=fashion_mnist", "recorder=none", "batch_size=64", "run_name=real", "num_threads=1",
    "lla.planes.grid_resolution=9", "lla.enable_sam=true", "lla.evaluation_data.eval_batch_size=128",
    "lla.spectrum.esd.num_probes=2", "lla.spectrum.esd.lanczos_steps=20", "lla.spectrum.hutchinson_probes=10",
)  # fmt: skip


@pytest.fixture(scope="module")
def convnet(tmp_path_factory):
    """Three permuted tasks for the convnet, pictures and all."""
    size = ("num_tasks=3", "epochs=2", "data.train_size=4000", "data.test_size=1000")
    config = compose(*SETTINGS, *size, "net=convnet", "learner/optimizer=adam", "learner.optimizer.lr=1e-3")
    return run_in(tmp_path_factory.mktemp("convnet"), config, summary=True)


def ends(folder):
    return [row for row in read_rows(folder) if "task/seconds" in row]


def test_every_task_is_learnt(convnet):
    accuracies = [row["plasticity/test_accuracy"] for row in ends(convnet)]
    assert len(accuracies) == 3
    assert min(accuracies) > 0.4, accuracies  # chance is 0.1; shuffled pixels are hard for convolutions


def test_eigenvalues_and_traces_come_with_small_errors(convnet):
    for row in ends(convnet):
        assert row["spectrum/top_eigenvalue_1"] > 0
        assert row["spectrum/top_residual_1"] <= 1e-3
        assert row["spectrum/trace_standard_error"] < abs(row["spectrum/trace"])


def test_the_hessian_plane_rises_from_its_centre_along_both_axes(convnet):
    for meta_path in convnet.glob("task_*/planes/hessian/meta.json"):
        losses, meta = np.load(meta_path.with_name("grid.npy")), json.loads(meta_path.read_text())
        centre = len(losses) // 2
        for line in (losses[:, centre], losses[centre, :]):
            assert line.min() >= meta["baseline_loss"] - 2 * meta["noise_floor"] - 0.01 * meta["baseline_loss"]


def test_small_real_images_are_enlarged_for_vgg(tmp_path):
    config = compose(
        *SETTINGS, "net=vgg16", "num_tasks=1", "epochs=1", "data.train_size=64", "data.test_size=32", "batch_size=32",
        "lla.enable_planes=false", "lla.enable_spectrum=false", "lla.enable_sam=false",
    )  # fmt: skip
    folder = run_in(tmp_path, config)
    assert "enlarged from 28×28 to 32×32" in (folder / "train.log").read_text()
    assert len(ends(folder)) == 1
