"""Every wrong config ends in a sentence that names the key, the value and what is allowed."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from annotated_types import Ge
from pydantic import PydanticUserError
from torch import nn
from torch.optim import SGD, Optimizer

from taskshift.config.build import build_parts
from taskshift.config.check import check_quick
from taskshift.config.command import compose
from taskshift.config.construct import construct
from taskshift.config.targets import resolve
from taskshift.config.typed import typed
from taskshift.config.words import said
from taskshift.data.synthetic_images import synthetic_images
from taskshift.faults import Fault
from taskshift.learners.rules.sgd import SGD as SGDRule
from taskshift.recorders.wandb_mirror import WandB

HERE = Path(__file__).resolve()
SMALL = ("data=synthetic_images", "recorder=none", "num_threads=1")

TOP_KEYS = (
    "batch_size, checkpoints, data, device, epochs, evaluate_every, execution, learner, lla, log_every, net, num_tasks, "
    "num_threads, objective, output_project, output_root, plugins, recorder, run_name, seed, sweep_name, task_shift, "
    "task_shift_mode, use_wandb, validation, wandb, watch"
)
HELP = "`python train.py --help` lists the choices"
OPTIMIZERS = "adadelta, adafactor, adagrad, adam, adamax, adamw, asgd, kron, muon, nadam, own, "
OPTIMIZERS += "radam, rmsprop, rprop, sgd, shampoo, soap or upgd"

QUICK = {
    "epochs=0": "epochs=0: expected a whole number, at least 1",
    "epochs=2.5": "epochs=2.5: expected a whole number, at least 1",
    "epochs=true": "epochs=true: expected a whole number, at least 1",
    "epochs=many": "epochs=many: expected a whole number, at least 1",
    "epochs=null": "epochs=null: expected a whole number, at least 1",
    "num_threads=0": "num_threads=0: expected a whole number, at least 1 or null",
    "seed=-1": "seed=-1: expected a whole number, at least 0, at most 9223372036854775807",
    "seed=???": "seed has no value; give one: seed=…",
    "~seed": "seed has no value; give one: seed=…",
    "device=gpu": "device=gpu: expected auto, cpu, cuda, or cuda:N for GPU number N",
    "use_wandb=maybe": "use_wandb=maybe: expected true or false",
    "run_name=a/b": "run_name=a/b: expected one folder name: not empty, no slash, at most 200 bytes",
    "run_name=..": "run_name=..: expected one folder name: not empty, no slash, at most 200 bytes",
    f"run_name={'x' * 201}": f"run_name={'x' * 201}: expected one folder name: not empty, no slash, at most 200 bytes",
    f"run_name='{'実' * 67}'": f"run_name={'実' * 67}: expected one folder name: not empty, no slash, at most 200 bytes",
    "output_project=/tmp": "output_project=/tmp: expected one folder name: not empty, no slash, at most 200 bytes",
    "wandb.mode=ofline": "wandb.mode=ofline: expected offline, online or disabled",
    "wandb=null": "wandb=null: expected a block of keys",
    "checkpoints=3": "checkpoints=3: expected a block of every_seconds, keep",
    "checkpoints.keep=-1": "checkpoints.keep=-1: expected a whole number, at least 0 or null",
    "lla.at=[middle]": "lla.at=[middle]: expected a list of start or end",
    "lla.tolerance=1": "lla.tolerance=1: expected a number, above 0, below 1 or null",
    "lla.compile=fast": "lla.compile=fast: expected true or false or auto",
    "lla.runtime.abort_if_estimated_hours_over=0": (
        "lla.runtime.abort_if_estimated_hours_over=0: expected a number, above 0 or null"
    ),
    "lla.enable_planes=3": "lla.enable_planes=3: expected true or false",
    "lla.weights=3": "lla.weights=3: expected a block with a _target_; lla.enable_weights=false leaves it out",
    "lla.planes=null": "lla.planes=null: expected a block of keys; lla.enable_planes=false leaves it out",
    "lla.evaluation_data.dataset_fraction_for_landscape=1.5": (
        "lla.evaluation_data.dataset_fraction_for_landscape=1.5: expected a number, above 0, at most 1"
    ),
    "nett=mlp": "nett: there is no such key; did you mean net?",
    "task_shift_mod=permuted": "task_shift_mod: there is no such key; did you mean task_shift_mode?",
    "lla.enable_smm=true": "lla.enable_smm: there is no such key; did you mean lla.enable_sam?",
    "+lla.enable_smm=true": "lla.enable_smm: there is no such key; did you mean lla.enable_sam?",
    "+epoch=3": "epoch: there is no such key; did you mean epochs?",
    "+foo=3": f"foo: there is no such key; the top level takes {TOP_KEYS}".replace("batch_size", "arch, batch_size", 1),
    "+arch=mlp": "arch: there is no such key; did you mean watch?",
    "+lla.foo.bar=1": "lla.foo: there is no such key; lla takes at, compile, coupling, dtype, enable_coupling, ",
    "lr=0.1": "lr: there is no such key; did you mean learner.optimizer.lr or lla.mode_connectivity.lr?",
    "optimizer=adam": "optimizer: there is no such key; did you mean learner.optimizer?",
    "net.widht=3": "net.widht: there is no such key; did you mean net.width?",
    "net.input_shape=3": "net.input_shape: there is no such key; net takes activation, ",
    "net=mpl": "net=mpl: there is no such net; give convnet, deep_linear, mlp, own, resnet18, transformer or vgg16",
    "learner/optimizer=adm": f"learner/optimizer=adm: there is no such optimizer; give {OPTIMIZERS}",
    "lla=[default,hessian]": f"lla=hessian: there is no such lla; {HELP}",
    "+lla=rank": (
        "+lla: lla has a choice already; write lla=… without the + to choose another; 'lla=[default,name]' adds an evaluator"
    ),
    "+net=mlp": "+net: net has a choice already; write net=… without the + to choose another",
    "+lla=3": f"+lla=3: expected the name of a file of this group; {HELP}",
    "net=null": f"net=null: expected the name of a file of this group; {HELP}",
    "~net": f"net: a run needs exactly one; {HELP}",
    "~nett": "~nett: there is no such key to delete",
    "seed=1,2": "seed=1,2: several values are a sweep, which needs --multirun; a list is written in brackets: [a,b]",
    "seed=range(3)": "seed=range(3): several values are a sweep, which needs --multirun; a list is written in brackets: [a,b]",
    "seed=[": "seed=[: this cannot be read; expected key=value, lists as [a,b], text with special signs in quotes",
    "seed": "seed: this cannot be read; expected key=value, lists as [a,b], text with special signs in quotes",
    "seed=${sed}": "seed: Interpolation key 'sed' not found",
    "net=own": "net._target_ has no value; give one: net._target_=…",
    "net._target_=null": "net._target_=null: expected the full name of a class, such as torch.optim.Adam",
    "net._target_=Net": "net._target_=Net: expected the full name of a class, such as torch.optim.Adam",
    "net._target_=os.system": (
        "net._target_=os.system: its package must be taskshift, loss_landscape, torch, torchvision "
        "or pytorch_optimizer; "
        "a module of yours is named in plugins: 'plugins=[my_module]'"
    ),
    "plugins=[os]": "plugins=[os]: os is Python's own; expected a module of yours",
    "plugins=[my/net.py]": "plugins=[my/net.py]: expected the name of a module, without .py and without folders",
    "plugins=my_net": "plugins=my_net: expected a list of text",
}

BUILT = {
    "net.width=0": "net.width=0 was asked for; give a whole number, 1 or more",
    "net.width=abc": "net.width=abc: expected a whole number",
    "+net.foo=3": "net.foo: there is no such key; net takes activation, bias, checkpoint, depth, initialization, "
    "layer, norm, width",
    "++net.widht=3": "net.widht: there is no such key; did you mean net.width?",
    "net.activation=relo": "net.activation=relo: expected relu, leaky_relu, prelu, crelu, maxout, fourier, tanh, sigmoid, elu, "
    "selu, gelu, silu or identity",
    "learner.optimizer.lr=-1": "learner.optimizer: Invalid learning rate: -1.0",
    "+learner.optimizer.params=3": "learner.optimizer.params: there is no such key; learner.optimizer takes ",
    "learner.optimizer=adam": (
        "learner.optimizer=adam: expected a block with a _target_; a file of that group is chosen by learner/optimizer=adam"
    ),
    "learner.optimizer._target_=torch.nn.Linear": (
        "learner.optimizer._target_=torch.nn.Linear: expected a subclass of torch.optim.optimizer.Optimizer"
    ),
    "net._target_=torch.load": (
        "net._target_=torch.load: expected a subclass of torch.nn.modules.module.Module, or a plugin's function that returns one"
    ),
    "net._target_=taskshift.nets.mlp.MPL": (
        "net._target_=taskshift.nets.mlp.MPL: there is no MPL in taskshift.nets.mlp; did you mean MLP?"
    ),
    "net._target_=taskshift.data.digits.digits": (
        "net._target_=taskshift.data.digits.digits: this function returns LabelledData; expected torch.nn.modules.module.Module"
    ),
    "net._target_=taskshift.config.targets.importlib.import_module": (
        "net._target_=taskshift.config.targets.importlib.import_module: "
        "this is defined in importlib; expected one of ours, torch's or a plugin's"
    ),
    "lla.planes.chunk_size=x lla.sam.chunk_size=null": "lla.planes.chunk_size=x: expected a whole number or null",
    "+lla.spectrum.esd.binz=3": "lla.spectrum.esd.binz: there is no such key; did you mean lla.spectrum.esd.bins?",
    "lla.sam.rho=x": "lla.sam.rho=x: expected a number",  # switched off, and checked all the same
    "device=cuda:99": "device=cuda:99: ",
    "lla.plasticity.max_train_examples=0": "lla.plasticity.max_train_examples is 0; give at least 1, or null for all",
    "lla.rank.measures=[]": "lla.rank.measures is []; give at least one, each once",
    "lla.rank.measures=[stable,stable]": "lla.rank.measures is ['stable', 'stable']; give at least one, each once",
    "lla.rank.numerical_rank_epsilon=1": (
        "lla.rank.numerical_rank_epsilon is 1.0; it is relative to the largest, between 0 and 1"
    ),
    "lla.spectrum.esd.n_kh=0": "lla.spectrum.esd: esd.n_kh is 0.0; the power of K_h(n) is above 0",
    "lla.units.tau=1": "lla.units.tau is 1.0; it is a share of the layer's mean activity, at least 0 and below 1",
    "lla.units.saturation_epsilon=1": (
        "lla.units.saturation_epsilon is 1.0; it is a distance to an asymptote, between 0 and 0.5"
    ),
    "lla.sam.rho=0": "lla.sam.rho is 0.0; give the length of the step, above 0",
    "learner=sam learner.gradient.rho=0": "learner.gradient.rho is 0.0; the length of the ascent is above 0",
    "learner/gradient=asam learner.gradient.eta=-1": "learner.gradient.eta is -1.0; it is added to |θ| and is 0 or more",
    "data.noise=-1": "data.noise=-1.0 was asked for; give a standard deviation, 0 or more",
    "learner/scheduler=one_cycle learner/optimizer=adagrad": (
        "learner.scheduler.cycle_momentum=true: the optimizer (Adagrad) has no momentum that could be moved; give "
        "learner.scheduler.cycle_momentum=false"
    ),
    "learner/scheduler=cyclic learner.optimizer.momentum=0": (
        "learner.scheduler.cycle_momentum=true: the optimizer (SGD) has no momentum that could be moved; give "
        "learner.scheduler.cycle_momentum=false, or a learner.optimizer.momentum above 0"
    ),
    "learner/scheduler=one_cycle learner.scheduler.total_steps=3": (
        "learner.scheduler: the cycle has 3 steps, but it steps 10 times in a task; give learner.scheduler.total_steps=10, or "
    ),
    "learner/scheduler=one_cycle learner.restart_scheduler=false": "learner.scheduler.total_steps=null: that is as many as a ",
    "learner/scheduler=plateau learner.scheduler_every=step": (
        "learner.scheduler_every=step: ReduceLROnPlateau looks at an epoch's loss; give learner.scheduler_every=epoch"
    ),
    "net.norm=batch batch_size=1": (
        "batch_size=1: give 2 or more, or a net without batch norm, which cannot learn from one example"
    ),
    "net.norm=batch data.train_size=1": (
        "data: task 0 has one training example; give more data, or a net without batch norm, which cannot learn from one example"
    ),
    "net.norm=batch task_shift_mode=class_pairs num_tasks=5 data.train_size=9": "data: task 0 has one training example; give ",
    "task_shift_mode=class_pairs data.train_size=5": (
        "data: task 1 has no training examples: it is of classes that have none; give more data"
    ),
    "task_shift_mode=class_pairs task_shift.cycle=true data.train_size=5": "data: task 1 has no training examples: ",
    "task_shift_mode=incremental_classes data.test_size=3": "data: task 0 has no test examples: it is of classes that have ",
    "data=cifar10 data.root=nowhere": "data.root=nowhere: cifar10 is not there",
    "task_shift_mode=class_pairs num_tasks=99": "num_tasks=99: class_pairs ends after 5 tasks on synthetic_images; give 1 to 5",
}


def _sentences(*words, check=lambda config: None):
    with pytest.raises(Fault) as caught:
        check(compose(*words))
    return caught.value.sentences


@pytest.mark.parametrize("words", QUICK)
def test_known_without_torch(words):
    (sentence,) = _sentences(*words.split())
    assert sentence.startswith(QUICK[words])
    assert sentence == QUICK[words] or QUICK[words].endswith(", ")
    assert not re.search(r"append|use \+", sentence)


@pytest.mark.parametrize("words", BUILT)
def test_known_from_signatures_and_constructors(words):
    (sentence,) = _sentences(*SMALL, *words.split(), check=build_parts)
    assert sentence.startswith(BUILT[words])


def test_all_faults_of_the_first_stage_at_once():
    assert _sentences("epochs=0", "+foo=1", "lla.every=0", "plugins=[no_such_module]", "net=own")[:4] == (
        f"foo: there is no such key; the top level takes {TOP_KEYS}".replace("batch_size", "arch, batch_size", 1),
        "epochs=0: expected a whole number, at least 1",
        "lla.every=0: expected a whole number, at least 1",
        f"plugins=[no_such_module]: there is no module no_such_module in {Path.cwd()}, nor is one installed",
    )


def test_all_faults_of_signatures_at_once():
    found = _sentences(*SMALL, "net.width=a", "+data.foo=1", "lla.units.tau=b", check=build_parts)
    assert [sentence.split(":")[0] for sentence in found] == ["data.foo", "net.width=a", "lla.units.tau=b"]


def test_all_faults_of_constructors_at_once():
    found = _sentences(*SMALL, "net.width=0", "lla.units.tau=-1", "lla.sam.rho=-1", check=build_parts)
    assert [sentence.split(" ")[0].split("=")[0] for sentence in found] == ["lla.sam.rho", "lla.units.tau", "net.width"]


def test_first_stage_needs_no_torch():
    code = (
        "import sys; from taskshift.config.command import compose; from taskshift.faults import Fault\n"
        "try: compose('epochs=0', 'plugins=[foo]', 'net=own')\n"
        "except Fault: pass\n"
        "heavy = {'torch', 'torchvision', 'numpy', 'scipy', 'sklearn', 'matplotlib', 'wandb', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(HERE.parents[2] / "src")})


# -- annotations ------------------------------------------------------------------------------------------------


class Unreadable:
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        raise PydanticUserError("no schema for this", code=None)


@dataclass(frozen=True)
class Inner:
    number: int = 1

    def __post_init__(self):
        if self.number > 9:
            raise ValueError(f"number is {self.number}; give at most 9")


@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [
        (1, float, 1.0),
        (2.0, int, 2),
        ([1, 2], tuple[int, int], (1, 2)),
        (None, int | None, None),
        ({"number": 3}, Inner, Inner(3)),
        (None, Inner | None, None),
        ("a", Literal["a", "b"], "a"),
        ("anything", Any, "anything"),
        ("x", Unreadable, "x"),
    ],
)
def test_values_arrive_as_annotated(value, kind, result):
    faults = []
    assert typed("key", value, kind, faults) == result
    assert not faults


@pytest.mark.parametrize(
    ("value", "kind", "sentence"),
    [
        (True, int, "key=true: expected a whole number"),
        ([True], tuple[int, ...], "key=[true]: expected a list of a whole number"),
        ([1], tuple[int, int], "key=[1]: expected a list of 2 (a whole number, a whole number)"),
        ("a", float | None, "key=a: expected a number or null"),
        (0, Annotated[int, Ge(1)], "key=0: expected a whole number, at least 1"),
        ({"numbr": 1}, Inner, "key.numbr: there is no such key; did you mean key.number?"),
        ({"number": 10}, Inner, "key: number is 10; give at most 9"),
        (3, Inner | None, "key=3: expected a block of number or null"),
        ("???", int, "key has no value; give one: key=…"),
    ],
)
def test_values_that_do_not_fit(value, kind, sentence):
    faults = []
    typed("key", value, kind, faults)
    assert faults == [sentence]


@pytest.mark.parametrize(("kind", "result"), [(int | float, int), (float | int, float), (Annotated[int, []], int)])
def test_alternatives_are_tried_in_their_order_whatever_was_read_before(kind, result):
    """Unions that are equal but for their order are told apart, and what has no hash is read as well."""
    faults: list[str] = []
    assert type(typed("key", "2", kind, faults)) is result
    assert faults == []


def test_said():
    assert said(Literal["a", "b"] | None) == "a, b or null"


# -- construction ----------------------------------------------------------------------------------------------


def _block(target, **arguments):
    return {"_target_": target, **arguments}


def test_a_nested_block_is_left_to_its_owner():
    learner = construct(
        _block("taskshift.learners.learner.Learner", optimizer=_block("torch.optim.SGD", lr=0.5)),
        object,
        net=nn.Linear(2, 1),
    )
    assert isinstance(learner.optimizer, SGD)
    assert learner.optimizer.defaults["lr"] == 0.5


class Holder:
    """Takes blocks of no annotated kind."""

    def __init__(self, inner, typed: Any = None, more: dict | None = None):
        self.inner, self.typed, self.more = inner, typed, more


def test_nested_blocks_for_arguments_without_a_kind_are_made_as_they_say(monkeypatch):
    monkeypatch.setattr("taskshift.nets.layers.Holder", Holder, raising=False)
    monkeypatch.setattr(Holder, "__module__", "taskshift.nets.layers")
    layer = _block("torch.nn.Linear", in_features=2, out_features=3)
    made = construct(_block("taskshift.nets.layers.Holder", inner=layer, typed=layer, more={"one": layer}), object)
    assert [one.weight.shape for one in (made.inner, made.typed, made.more["one"])] == [(3, 2)] * 3


def test_a_rule_goes_where_an_optimizer_goes():
    rule = _block("taskshift.learners.rules.sgd.SGD", lr=0.5)
    learner = construct(_block("taskshift.learners.learner.Learner", optimizer=rule), object, net=nn.Linear(2, 1))
    assert isinstance(learner.rule, SGDRule)
    assert learner.why_eager() is None
    wrong = _block("taskshift.learners.regularizers.L2", weight=0.5)
    with pytest.raises(Fault, match="learner.optimizer._target_=.*L2: expected a subclass of torch"):
        construct(_block("taskshift.learners.learner.Learner", optimizer=wrong), object, where="learner", net=nn.Linear(2, 1))


def test_the_framework_gives_only_what_a_signature_asks_for():
    layer = construct(
        _block("torch.nn.Linear", in_features=2, out_features=3), nn.Module, input_shape=(1,), num_outputs=9, seed=1
    )
    assert layer.weight.shape == (3, 2)


def test_a_target_with_open_arguments_is_judged_by_its_constructor():
    net = construct(_block("torchvision.models.resnet18", num_classes=7), nn.Module)
    assert net.fc.out_features == 7
    with pytest.raises(Fault, match=r"^block: .*unexpected keyword argument 'widht'"):
        construct(_block("torchvision.models.resnet18", widht=7), nn.Module)


@pytest.mark.parametrize("path", ["torch.hub.load", "torchvision.datasets.MNIST", "torch.optim.SGD", "taskshift.run"])
def test_what_is_no_net_is_no_net(path):
    with pytest.raises(Fault, match=rf"^net={path}: expected a subclass of torch.nn.modules.module.Module"):
        resolve(path, nn.Module, "net")


def test_abstract_classes_of_others_are_no_targets():
    with pytest.raises(Fault, match="expected a subclass of torch.optim.optimizer.Optimizer"):
        resolve("torch.utils.data.Dataset", Optimizer, "x")


# -- parts -----------------------------------------------------------------------------------------------------


def test_build_parts_is_seeded_once_and_leaves_no_other_trace():
    config = compose(*SMALL)
    first = build_parts(config)
    after = torch.random.get_rng_state()
    torch.rand(3)
    second = build_parts(config)
    assert torch.equal(torch.random.get_rng_state(), after)
    states = first.training.net.state_dict(), second.training.net.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_make_training_keeps_the_random_state():
    parts = build_parts(compose(*SMALL))
    before = torch.random.get_rng_state()
    one, other, again = parts.make_training(1), parts.make_training(2), parts.make_training(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [next(training.net.parameters()) for training in (one, other, again)]
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[1])


def test_build_parts_touches_no_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_parts(compose("data=synthetic_images", "num_threads=1"))
    assert not list(tmp_path.iterdir())


def test_small_images_are_enlarged_once_and_said():
    parts = build_parts(compose(*SMALL, "net=convnet", "net.width=8", "net.channels=[2,2,2]"))
    assert parts.stream.input_shape == (1, 24, 24)
    assert parts.stream.note == "synthetic_images: images enlarged from 8×8 to 24×24, the smallest that the net takes"


def test_use_wandb_takes_the_recorder_out_whatever_is_chosen():
    chosen = ("data=synthetic_images", "recorder=wandb")
    assert isinstance(build_parts(compose(*chosen)).recorders["wandb"], WandB)
    assert build_parts(compose(*chosen, "use_wandb=false")).recorders == {}


def test_switches_decide_which_evaluators_run():
    parts = build_parts(compose(*SMALL, "lla.enable_planes=false", "lla.enable_sam=true"))
    assert set(parts.evaluators) == {"spectrum", "sam", "rank", "units", "weights", "plasticity", "coupling"}


def test_the_checked_config_comes_with_types():
    top, lla = check_quick(compose("run_name=7", "plugins=[]", "lla.at=[start,end]"))
    assert (top.run_name, top.plugins, lla.at, top.checkpoints.every_seconds) == ("7", (), ("start", "end"), 60.0)


# -- a user's own ----------------------------------------------------------------------------------------------

NET = """
from math import prod
from torch import nn

class Net(nn.Module):
    def __init__(self, input_shape, num_outputs, width: int = 3, fault: str = ""):
        super().__init__()
        self.fault = fault
        self.hidden = nn.Linear(5 if fault == "shape" else prod(input_shape), width)
        self.head = nn.Linear(width, num_outputs + (fault == "outputs"))
        if fault == "constructor":
            raise ValueError("a bug of mine")

    def forward(self, inputs):
        if self.fault == "bug":
            return self.haed(inputs)
        return self.head(self.hidden(inputs.flatten(1)).relu())


from taskshift.data.synthetic_images import synthetic_images
from taskshift.evaluators.evaluator import Evaluator, Findings


def data(side: int = 5):
    return synthetic_images(side=side)


class Pattern:
    def __init__(self, seed: int):
        self.seed = seed


def patterned(by):
    return synthetic_images(pattern_seed=(by if isinstance(by, Pattern) else by["one"]).seed)


class Measure(Evaluator):
    def __init__(self, number: float = 1.0):
        self.number = number

    def __call__(self, measurement):
        return Findings({"number": self.number})
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The overrides of a net in the working directory."""
    name = f"module_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return (*SMALL, f"plugins=[{name}]", "net=own", f"net._target_={name}.Net")


def test_a_net_in_the_working_directory(own):
    net = build_parts(compose(*own, "+net.width=24")).training.net
    assert net.hidden.out_features == 24
    assert sys.path[-1] == str(Path.cwd())


def test_data_and_an_evaluator_in_the_working_directory(own):
    name = own[-1].split("=")[1].split(".")[0]
    words = (
        *own,
        "data=own",
        f"data._target_={name}.data",
        "+data.side=6",
        "lla=[default,own]",
        f"lla.own._target_={name}.Measure",
    )
    parts = build_parts(compose(*words, "+lla.own.number=2"))
    assert parts.stream.input_shape == (1, 6, 6)
    assert parts.evaluators["own"].number == 2.0
    assert "own" not in build_parts(compose(*words, "lla.enable_own=false")).evaluators


@pytest.mark.parametrize("place", ["by", "by.one"])
def test_data_of_a_nested_block_that_takes_the_seed_are_each_runs_own(own, place):
    name = own[-1].split("=")[1].split(".")[0]
    words = (*own, "data=own", f"data._target_={name}.patterned", f"+data.{place}._target_={name}.Pattern")
    data_sets = {}
    held = [build_parts(compose(*words, f"seed={seed}"), data_sets).stream.data for seed in (0, 1, 0)]
    assert held[0] is held[2]
    for data, seed in zip(held, (0, 1), strict=False):
        torch.testing.assert_close(data.inputs, synthetic_images(pattern_seed=seed).inputs, rtol=0, atol=0)


GROWING = """
import torch
from taskshift.learners.interventions import AtSwitch

class Grows(AtSwitch):
    def at_switch(self, subject, context):
        return subject._replace(net={"new.weight": torch.zeros(3)})
"""


def test_a_part_that_grows_the_net_is_a_sentence_before_anything_is_written(own):
    """It used to end in a KeyError of an evaluator, after a task had been trained."""
    name = own[-1].split("=")[1].split(".")[0]
    path = Path(f"{name}.py")
    path.write_text(path.read_text() + GROWING)
    (sentence,) = _sentences(*own, f"+learner.interventions.grow={{_target_: {name}.Grows}}", check=build_parts)
    assert sentence.startswith(
        "grow changed the net: new.weight was not there and is [3] of float32 now; optimizers, checkpoints"
    )


def test_a_key_that_its_signature_has_is_the_one_that_may_be_added(own):
    (sentence,) = _sentences(*own, "net.width=24")
    name = own[-1].split("=")[1]
    assert sentence == f"net.width: its file does not list this key, but {name} takes it; write +net.width=…"


def test_a_key_that_its_signature_has_not(own):
    assert _sentences(*own, "+net.widht=24", check=build_parts) == ("net.widht: there is no such key; did you mean net.width?",)


def test_a_wrong_size_is_a_sentence_that_names_the_line(own):
    (sentence,) = _sentences(*own, "+net.fault=shape", check=build_parts)
    assert sentence.startswith("net: Net cannot take inputs of shape [2, 1, 8, 8] (")
    assert "mat1 and mat2 shapes cannot be multiplied" in sentence
    assert f"line 17 of {own[-1].split('=')[1].split('.')[0]}.py" in sentence


def test_a_wrong_head_is_a_sentence(own):
    (sentence,) = _sentences(*own, "+net.fault=outputs", check=build_parts)
    assert sentence.startswith("net: Net returned the shape [2, 11] for 2 examples; expected [2, 10]")


@pytest.mark.parametrize(("fault", "error"), [("bug", AttributeError), ("constructor", ValueError)])
def test_a_bug_in_a_net_keeps_its_traceback(own, fault, error):
    with pytest.raises(error):
        build_parts(compose(*own, f"+net.fault={fault}"))


def test_the_two_examples_leave_no_trace(own):
    net = build_parts(compose(*own)).training.net
    assert all(parameter.grad is None for parameter in net.parameters())
    assert net.training


def test_compose_takes_a_list_as_hydras_own_does():
    assert compose(["seed=3", "epochs=2"], "batch_size=8") == compose("seed=3", "epochs=2", "batch_size=8")


@pytest.mark.parametrize("key", ["learner.optimizer.lr", "lla.sam.rho", "lla.tolerance"])
def test_nan_is_no_number_anywhere(key):
    with pytest.raises(Fault) as fault:
        build_parts(compose(*SMALL, f"{key}=nan"))
    assert "=nan: expected a number" in str(fault.value)
