"""Training in tests, and toy parts of learners: what later learners will need of them."""

from __future__ import annotations

import torch

from taskshift.learners.draws import EveryStep, FreshRows
from taskshift.learners.eager import EagerAfterStep, EagerAtSwitch, EagerRegularizer
from taskshift.learners.interventions import AfterEpoch, AfterStep, AtSwitch
from taskshift.learners.learner import Learner
from taskshift.learners.regularizers import Regularizer
from taskshift.training import Training


def training_of(net, optimizer, stream, make_net=None, length=None, **given):
    """A training of a learner with these parts, from the stream's first two examples."""
    task = stream[0]
    example = stream.gather(task, task.train[:2])
    return Training(Learner(net, optimizer, **given), example, seed=stream.seed, make_net=make_net, length=length)


def train(training, stream, index=0, epochs=1):
    """Losses of every step of a task."""
    task, losses = stream[index], []
    training.begin(task, stream.in_batches(task, task.train))
    for number in range(epochs):
        steps = [training.learn(task, batch) for batch in stream.epoch(task, number)]
        losses += [step.loss.item() for step in steps]
        training.end_epoch(task, {"loss": sum(losses[-len(steps) :]) / len(steps)})
    return losses


def vector(net):
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


class TowardStart(Regularizer):
    """½ weight ‖θ - θ₀‖², as a later learner will have it: θ₀ is seen when the net is built."""

    def __init__(self, weight):
        self.weight = weight

    def settings(self):
        return {"weight": self.weight}

    def init(self, start):
        return {"start": {name: start.net[name].clone() for name in start.trained}}

    def penalty(self, parameters, context):
        far = [(value - context.memory["start"][name]).square().sum() for name, value in parameters.items()]
        return context.settings["weight"] / 2 * sum(far)


class ActivitySquared(Regularizer):
    """weight · mean h² of a module's output: a penalty of features."""

    reads = ("2",)

    def penalty(self, parameters, context):
        return 0.1 * context.features["2"].square().mean()


class PowerIteration(Regularizer):
    """weight · σ² of one matrix, σ by one step of power iteration from the last step's vector: it must advance once a step."""

    def init(self, start):
        return {"v": torch.ones_like(start.net["1.weight"][0]) / start.net["1.weight"].shape[1] ** 0.5}

    def advance(self, parameters, context):
        v = parameters["1.weight"].T @ (parameters["1.weight"] @ context.memory["v"])
        return {"v": v / v.norm()}

    def penalty(self, parameters, context):
        return 0.1 * (parameters["1.weight"] @ context.memory["v"]).square().sum()


class Redraw(AfterStep):
    """Draws the least active unit anew, every `every` steps, as unit resets do: features, fresh rows, slots, a count."""

    reads = ("2",)

    def __init__(self, every=1):
        self.every = every

    def init(self, start):
        return {"activity": torch.zeros_like(start.net["1.bias"]), "count": torch.zeros(())}

    def draws(self):
        return {"rows": FreshRows("1.weight", at_most=1)}

    def after_step(self, subject, context):
        activity = 0.9 * subject.memory["activity"] + 0.1 * context.features["2"].abs().mean(dim=0)
        unit = activity.argmin(dim=0, keepdim=True)
        weight = subject.net["1.weight"].index_copy(0, unit, context.rows("rows", 1))
        slots = {
            slot: {**of, "1.weight": of["1.weight"].index_fill(0, unit, 0.0)} if "1.weight" in of else of
            for slot, of in subject.slots.items()
        }
        return subject._replace(
            net={"1.weight": weight},
            slots=slots,
            memory={"activity": activity, "count": subject.memory["count"] + 1},
            numbers={"replaced": torch.ones((), device=weight.device)},
            taken={"rows": torch.ones((), dtype=torch.int64, device=weight.device)},
        )


class Noise(AfterStep):
    """θ ← (1 − lr λ) θ + σ ξ for one matrix, at every step."""

    def __init__(self, shrink=0.01, sigma=0.001):
        self.shrink, self.sigma = shrink, sigma

    def settings(self):
        return {"shrink": self.shrink, "sigma": self.sigma}

    def init(self, start):
        self.shape = tuple(start.net["1.weight"].shape)
        return {}

    def draws(self):
        return {"noise": EveryStep(self.shape)}

    def after_step(self, subject, context):
        weight, lr = subject.net["1.weight"], context.optimizer["lr"].to(context.settings["shrink"].dtype)
        kept = weight * (1 - lr * context.settings["shrink"])
        return subject._replace(net={"1.weight": kept + context.settings["sigma"] * context.draws["noise"]})


class Tortoise(AfterStep, AfterEpoch):
    """Measured is a running average of the net; at an epoch's end the net goes there."""

    def init(self, start):
        return {"slow": {name: tensor.clone() for name, tensor in start.net.items()}}

    def after_step(self, subject, context):
        slow = {
            name: t.lerp(subject.net[name], 0.1) if t.is_floating_point() else t for name, t in subject.memory["slow"].items()
        }
        return subject._replace(memory={"slow": slow})

    def after_epoch(self, subject, context):
        return subject._replace(net=subject.memory["slow"], numbers={"moved": torch.ones(())})

    def measured(self, net, memory):
        return memory["slow"]


class FreshHead(AtSwitch):
    """Draws one layer anew at a switch."""

    def at_switch(self, subject, context):
        fresh = context.fresh()
        return subject._replace(net={name: fresh[name] for name in ("3.weight", "3.bias")}, numbers={"heads": torch.ones(())})


class EagerTowardStart(EagerRegularizer):
    """`TowardStart` that keeps θ₀ itself."""

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


class Shrink(EagerAfterStep):
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


class NewHead(EagerAtSwitch):
    def at_switch(self, net, optimizer, task):
        net[3].reset_parameters()
