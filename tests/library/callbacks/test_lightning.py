"""Lightning's Trainer with our callback: what is recorded is right, and the training is as without it."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from user_training import loader_of, user_net

from loss_landscape import LossLandscapeWriter
from loss_landscape.callbacks.lightning_trainer import LandscapeCallback

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's, about workers and SLURM


class Classifier(pl.LightningModule):
    def __init__(self, *, fails_at: int | None = None):
        super().__init__()
        self.net = user_net(norm=True, dropout=0.1)
        self.fails_at = fails_at

    def forward(self, inputs):
        return self.net(inputs)

    def training_step(self, batch, index):
        if self.current_epoch == self.fails_at:
            raise RuntimeError("out of luck")
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.2)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]


def trained(*callbacks, epochs: int = 4, validate_every: int = 1, **options) -> Classifier:
    torch.manual_seed(3)
    net = Classifier(**options)
    quiet = {
        "check_val_every_n_epoch": validate_every,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=list(callbacks), **quiet)
    trainer.fit(net, loader_of(shuffle=True), loader_of())
    return net


def test_a_training_is_recorded_and_goes_on_as_without(tmp_path):
    alone = trained()
    told: list[dict[str, float]] = []
    writer = LossLandscapeWriter(tmp_path, mirror=told.append)
    data = loader_of(batch_size=10)
    callback = LandscapeCallback(
        writer, nn.CrossEntropyLoss(), data_loader=data, at_end=["trajectory", "hessian"], max_batches=None
    )
    net = trained(callback)
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, net.state_dict()[name]), name

    with torch.no_grad():
        inputs, targets = torch.utils.data.default_collate(list(data.dataset))
        loss = F.cross_entropy(net.eval()(inputs), targets).item()
    checkpoints, path = writer.checkpoints(), writer.record().trajectories[0]
    assert [one.epoch for one in checkpoints] == [0, 1, 2, 3]
    assert [one.learning_rate for one in checkpoints] == pytest.approx([0.2, 0.1, 0.05, 0.025])
    assert checkpoints[-1].val_loss == pytest.approx(loss, rel=1e-6)
    assert checkpoints[0].train_loss > checkpoints[-1].train_loss > 0
    assert path.losses[-1] == pytest.approx(loss, rel=1e-6)
    assert path.coordinates[-1] == pytest.approx([0, 0], abs=1e-6)
    assert told[-1]["hessian/max_eigenvalue"] == writer.record().hessians[0].max_eigenvalue
    writer.close()


def test_a_training_that_fails_lets_go_of_the_folder(tmp_path):
    with pytest.raises(RuntimeError, match="out of luck"):
        trained(LandscapeCallback(tmp_path, nn.CrossEntropyLoss()), fails_at=2)
    with LossLandscapeWriter(tmp_path) as writer:
        assert [one.epoch for one in writer.checkpoints()] == [0, 1]


def test_a_loss_that_cannot_be_measured_stops_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match="scalar"):
        trained(LandscapeCallback(tmp_path, nn.CrossEntropyLoss(reduction="none")), fails_at=0)


def test_an_epoch_without_validation_has_no_loss_of_one(tmp_path):
    """Lightning goes on showing the last one."""
    trained(LandscapeCallback(tmp_path, nn.CrossEntropyLoss(), at_end=[]), validate_every=2)
    with LossLandscapeWriter(tmp_path) as writer:
        assert [one.val_loss is None for one in writer.checkpoints()] == [True, False, True, False]
