"""Training in tests, and toy parts of learners: what later learners will need of the hooks."""

from __future__ import annotations

import torch

from taskshift.learners.interventions import AfterStep, AtSwitch
from taskshift.learners.regularizers import Regularizer


def train(learner, stream, index=0, epochs=1):
    """Losses of every step of a task."""
    task, losses = stream[index], []
    learner.begin(task)
    for number in range(epochs):
        steps = [learner.learn(task, *batch) for batch in stream.epoch(task, number)]
        losses += [step.loss.item() for step in steps]
        learner.end_epoch(task, sum(losses[-len(steps) :]) / len(steps))
    return losses


def vector(net):
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


class TowardStart(Regularizer):
    """½ weight ‖θ - θ₀‖², as a later learner will have it: θ₀ is seen when the net is built."""

    def __init__(self, weight):
        self.weight = weight

    def attach(self, net):
        self.start = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}

    def penalty(self, parameters):
        return self.weight / 2 * sum((value - self.start[name]).square().sum() for name, value in parameters.items())

    def state_dict(self):
        return dict(self.start)

    def load_state_dict(self, state):
        self.start = dict(state)


class Shrink(AfterStep):
    """A toy that needs the optimizer, the batch, the net's features, randomness and a memory, as unit resets do."""

    def __init__(self, every):
        self.every, self.count, self.features = every, 0, None

    def attach(self, net, optimizer):
        net[2].register_forward_hook(self.see)

    def see(self, module, inputs, output):
        self.features = output.detach()

    def after_step(self, net, optimizer, task, inputs, targets):
        self.count += 1
        assert len(self.features) == len(inputs) == len(targets)
        if self.count % self.every == 0:
            unit = self.features.abs().mean(dim=0).argmin()
            weight = net[1].weight
            weight[unit] = 0.1 * torch.randn(weight.shape[1]).to(weight)
            optimizer.state[weight]["exp_avg"][unit] = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


class NewHead(AtSwitch):
    def at_switch(self, net, optimizer, task):
        net[3].reset_parameters()
