"""Where faults become sentences: nothing but a sentence for what a user can mend, everything for a bug."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from taskshift.boundary import sentences
from taskshift.faults import Fault
from tests.framework.commands import carry_out

ROOT = Path(__file__).resolve().parents[2]
TRAIN = [sys.executable, str(ROOT / "train.py")]


def _train(folder, *words):
    return subprocess.run([*TRAIN, *words], cwd=folder, capture_output=True, text=True)


def _nothing(config, overrides):
    """A job that does nothing."""


def test_a_fault_is_its_sentences_and_status_1(capsys):
    with pytest.raises(SystemExit) as end, sentences():
        raise Fault("one thing", "another")
    assert end.value.code == 1
    assert capsys.readouterr().err == "one thing\nanother\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), sentences():
        _ = 1 / 0


def test_ctrl_c_is_a_sentence_and_status_130(capsys):
    with pytest.raises(SystemExit) as end, sentences():
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert capsys.readouterr().err.startswith("stopped by Ctrl-C; ")


def test_a_fault_inside_the_job_adds_nothing_of_hydras(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def job(config, overrides):
        raise Fault("the disk is full")

    assert carry_out(job=job) == 1
    assert capsys.readouterr().err == "the disk is full\n"


def test_a_bug_inside_the_job_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def job(config, overrides):
        return {}["absent"]

    with pytest.raises(KeyError):
        carry_out(job=job)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nett=mlp"], "nett: there is no such key; did you mean net?"),
        (["net=mpl"], "net=mpl: there is no such net; give convnet, deep_linear, mlp, own, resnet18, transformer or vgg16"),
        (
            ["epochs=0", "lla.every=0"],
            "epochs=0: expected a whole number, at least 1\nlla.every=0: expected a whole number, at least 1",
        ),
        (["+lla=3"], "+lla=3: expected the name of a file of this group; `python train.py --help` lists the choices"),
        (["wandb=null"], "wandb=null: expected a block of keys"),
        (["seed=1e3"], "seed=1000.0: expected a whole number, written without a point or an exponent"),
        (["seed=99999999999999999999"], f"seed={'9' * 20}: expected a whole number, at least 0, at most 9223372036854775807"),
        (["epochs=1e1"], "epochs=10.0: expected a whole number, written without a point or an exponent"),
        (["run_name=None"], "run_name=None: expected a name; null stands for none"),
        (["run_name=nan"], "run_name=nan: expected a name; null stands for none"),
        (["~lla.enable_sam"], "~lla.enable_sam: a switch is not deleted; lla.enable_sam=false leaves the evaluator out"),
        (
            ["hydra.run.dir=elsewhere"],
            "hydra.run.dir=elsewhere: a run's folder is <output_root>/<output_project>/<net>/<run_name>, a sweep's has "
            "sweeps/<sweep_name> in place of the net; say where results go by output_root=…",
        ),
        (
            ["-cn", "nothere"],
            "--config-name=nothere: there is no such file in the folder of configs; leave it out, train.py's own is config",
        ),
        (
            ["-m", "hydra.sweep.dir=elsewhere", "seed=0,1"],
            "hydra.sweep.dir=elsewhere: a run's folder is <output_root>/<output_project>/<net>/<run_name>, a sweep's has "
            "sweeps/<sweep_name> in place of the net; say where results go by output_root=…",
        ),
        (["output_root="], "output_root=: expected a folder, such as outputs or /scratch/me"),
        (
            ["-m", "output_root=here,there"],
            "output_root: all runs of a sweep lie in one folder; give output_root one value",
        ),
        (["--seed=3"], "--seed=3: there is no such option; a key is written without dashes, seed=3"),
        (
            ["epochs=2", "--learner.optimizer.lr", "3"],
            "--learner.optimizer.lr: there is no such option; a key is written without dashes, learner.optimizer.lr=…",
        ),
        (
            ["--cfg", "jobs"],
            "argument --cfg/-c: invalid choice: 'jobs' (choose from 'job', 'hydra', 'all'); `python train.py --hydra-help` lists "
            "Hydra's options",
        ),
        (["plugins=[my_net.py]"], "plugins=[my_net.py]: expected the name of a module, without .py: plugins=[my_net]"),
        (
            ["-m", "hydra.launcher.detach=true", "cluster=local"],
            "hydra.launcher.detach=true: only jobs of cluster=slurm go on alone; leave it out, or take cluster=slurm",
        ),
        (
            ["-m", "hydra.launcher.workers=3"],
            "hydra.launcher.workers=3: only cluster=local has workers; leave it out, or take cluster=local",
        ),
        (["epochs"], "epochs: this cannot be read; expected key=value, lists as [a,b], text with special signs in quotes"),
    ],
)
def test_a_wrong_command_writes_nothing(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert carry_out(*words, job=_nothing) == 1
    assert capsys.readouterr().err == f"{sentence}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("word", "name"), [("42", "42"), ("1e3", "1e3"), ("inf", "inf"), ("1.50", "1.50"), ("007", "007")])
def test_a_name_that_looks_like_a_number_is_the_one_that_was_written(word, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    assert carry_out(f"run_name={word}", f"output_project={word}", job=lambda config, overrides: seen.append(config)) == 0
    assert (seen[0]["run_name"], seen[0]["output_project"]) == (name, name)


def test_slurm_is_missed_before_anything_is_made(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert carry_out("cluster=slurm", "seed=0,1", job=_nothing) == 1
    said = "cluster=slurm: there is no sbatch and no srun here; go to a machine of the cluster, or take cluster=local\n"
    assert capsys.readouterr().err == said
    assert not list(tmp_path.iterdir())


def test_the_job_gets_a_plain_config_and_the_commands_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    carry_out("net=convnet", "seed=3", job=lambda *given: seen.append(given))
    ((config, overrides),) = seen
    assert (config["arch"], config["seed"], overrides) == ("convnet", 3, ["net=convnet", "seed=3"])
    assert type(config) is dict
    assert type(config["lla"]["planes"]["span"]) is list
    assert "hydra" not in config
    assert config["lla"]["sam"]["span"] == config["lla"]["planes"]["span"]  # resolved
    assert not list(tmp_path.iterdir())


def test_train_ends_with_a_sentence_and_no_folder(tmp_path):
    done = _train(tmp_path, "net.width=0", "data=synthetic_images")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "net.width=0 was asked for; give a whole number, 1 or more\n"
    assert not list(tmp_path.iterdir())


def test_help_names_the_groups(tmp_path):
    done = _train(tmp_path, "--help")
    assert done.returncode == 0
    for group in ("data", "net", "learner", "learner/optimizer", "task_shift_mode", "lla", "recorder", "experiment", "debug"):
        assert re.search(rf"^{group}: \w+", done.stdout, re.MULTILINE), group
    assert re.search(r"^seed: 0$", done.stdout, re.MULTILINE)


def test_a_pipe_that_closes_is_no_fault(tmp_path):
    done = subprocess.run(
        f"{sys.executable} {ROOT / 'train.py'} --cfg job | true", shell=True, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("sent", "status", "said_by"),
    [(signal.SIGINT, 130, "Ctrl-C"), pytest.param(signal.SIGTERM, 143, "SIGTERM", marks=pytest.mark.slow)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_signal_ends_train_in_a_sentence(sent, status, said_by, tmp_path):
    process = subprocess.Popen(
        [*TRAIN, "debug=tiny", "recorder=none", "epochs=100000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore Ctrl-C
    )
    try:
        assert process.stdout.readline().startswith("writing to ")
        time.sleep(0.3)
        process.send_signal(sent)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == status
    goes_on = "a run that had begun goes on with the command it printed first, a sweep with its own"
    assert said.splitlines()[-1] == f"stopped by {said_by}; {goes_on}"
    assert "Traceback" not in said


@pytest.mark.parametrize("charset", ["ascii", pytest.param("latin-1", marks=pytest.mark.slow)])
def test_a_terminal_that_lacks_signs_gets_the_whole_table(charset, tmp_path):
    words = ["debug=tiny", "recorder=none", "num_tasks=1", "lla.enable_sam=false", "lla.enable_planes=false"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": charset, "LC_ALL": "C", "PYTHONUTF8": "0"}
    environment |= {"PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([*TRAIN, *words, "run_name=plain"], cwd=tmp_path, capture_output=True, env=environment)
    said = done.stdout.decode(charset)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    assert "lambda" in said
    assert "open first:" in said
    assert (tmp_path / "outputs/loss_landscape_taskshift/mlp/plain/DONE").exists()


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_and_its_workers_in_a_sentence(tmp_path):
    process = subprocess.Popen(
        [
            *TRAIN,
            "--multirun",
            "debug=tiny",
            "recorder=none",
            "epochs=100000",
            "seed=0,1,2",
            "cluster=local",
            "hydra.launcher.workers=2",
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        start_new_session=True,
    )
    try:
        assert _comes(lambda: len(list(tmp_path.glob("outputs/*/sweeps/*/*/train.log"))) >= 2, 60), "two workers are at work"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everything that the command has begun gets it
        _, said = process.communicate(timeout=30)
        assert _comes(lambda: _in_group(process.pid) == [])
    finally:
        for left in _in_group(process.pid):
            os.kill(left, signal.SIGKILL)
    assert process.returncode == 130
    assert said.startswith("stopped by Ctrl-C; ")
    assert said.count("\n") == 1


def _in_group(group: int) -> list[int]:
    """The processes of a group."""
    found = subprocess.run(["ps", "-e", "-o", "pid=,pgid="], capture_output=True, text=True, check=True).stdout
    return [int(number) for number, of in map(str.split, found.splitlines()) if int(of) == group]


def _comes(what: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.1)
    return what()
