"""The loss landscape of one net: `python lla_pipeline.py --config cfg/config.yaml --task all --outdir results key=value …`.

The functions are for notebooks and scripts: `prepare_data_and_models` first, what it returns goes into all others. Each one
finishes what is not finished yet, and writes into the folder that was given.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "src"))

from loss_landscape import Directions  # noqa: E402
from taskshift.boundary import sentences  # noqa: E402
from taskshift.faults import Fault  # noqa: E402
from taskshift.pipeline.elsewhere import net_from  # noqa: E402
from taskshift.pipeline.outdir import looked_up, place_for  # noqa: E402
from taskshift.pipeline.plan import Plan, read_plan  # noqa: E402
from taskshift.pipeline.prepared import Prepared, prepare  # noqa: E402
from taskshift.pipeline.summary import write_summary  # noqa: E402

PLAN = HERE / "cfg" / "config.yaml"


def prepare_data_and_models(
    config: str | Path | Plan = PLAN,
    outdir: str | Path | None = None,
    *overrides: str,
    checkpoint: str | Path | None = None,
    of_task: int | None = None,
    trajectory: Sequence[str | Path] = (),
) -> Prepared:
    """A net that stands where its training ends: trained as `config` says, or that of `checkpoint`.

    The checkpoint is a file of weights or a run's folder, of which `of_task` names the task, its last unless given. `trajectory`
    are files of snapshots on the way there, first to last. Paths are looked up from the working directory, then from the
    repository's root.
    """
    plan = config if isinstance(config, Plan) else read_plan(looked_up(config, ROOT).resolve(), overrides)
    path = [looked_up(file, ROOT) for file in trajectory]
    elsewhere = None if checkpoint is None else net_from(looked_up(checkpoint, ROOT), path, of_task)
    return prepare(plan, place_for(outdir or plan.logging.out_root, ROOT), elsewhere)


def get_hessian_axes(prepared: Prepared) -> Directions:
    """The two axes of the Hessian's plane."""
    return prepared.hessian_axes()


def plot_plane(prepared: Prepared, kind: str = "hessian") -> Path:
    """The picture of a plane's contours: of `hessian`, `random` or `trajectory`."""
    return prepared.picture("planes", f"{kind}/contour.png")


def compute_spectrum(prepared: Prepared) -> dict[str, float]:
    """Eigenvalues, trace and the density's statistics, each with its error."""
    return prepared.numbers("spectrum")


def plot_sam_surface(prepared: Prepared) -> Path:
    """The picture of the loss one step uphill, beside the plain one."""
    return prepared.picture("sam", "comparison.png")


def fit_mode_connectivity(prepared: Prepared) -> dict[str, float]:
    """The barriers to a second net, on the straight line and on the fitted curve."""
    return prepared.numbers("mode_connectivity")


def plot_mode_curve(prepared: Prepared) -> Path:
    """The picture of the loss along both paths."""
    return prepared.picture("mode_connectivity", "curve.png")


def track_ranks(prepared: Prepared) -> dict[str, float]:
    """Ranks of the net's features, and how their drops go with the loss's changes along the training."""
    return prepared.numbers("rank", "coupling")


def main(words: Sequence[str]) -> None:
    """Carry out a command line."""
    given = arguments(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    plan = read_plan(looked_up(given.config, ROOT).resolve(), given.overrides)
    names = plan.evaluators(given.task)  # before anything is written
    prepared = prepare_data_and_models(
        plan, given.outdir, checkpoint=given.checkpoint, of_task=given.of_task, trajectory=given.trajectory
    )
    prepared.analyse(names)
    print(f"open first: {write_summary(prepared)}")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """The command line's parts."""
    parser = argparse.ArgumentParser(prog="lla_pipeline.py", description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=PLAN, help="the plan, a yaml as cfg/config.yaml is")
    parser.add_argument("--task", default="all", help="planes, spectrum, sam, mode, rank or all")
    parser.add_argument("--outdir", help="where to; lla.logging.out_root unless given")
    parser.add_argument("--checkpoint", help="a net that was trained elsewhere: a file of weights, or a run's folder")
    parser.add_argument("--of-task", type=int, help="of a run's folder: the task whose net is taken, its last unless given")
    parser.add_argument(
        "--trajectory", nargs="+", default=[], help="files of snapshots on the way to the checkpoint, first to last"
    )
    parser.add_argument("overrides", nargs="*", help="key=value … for the plan, as train.py takes them")
    given = parser.parse_intermixed_args(words)
    files = [word for word in given.trajectory if "=" not in word or Path(word).exists()]
    given.overrides += [word for word in given.trajectory if word not in files]  # argparse takes them for files
    given.trajectory = files
    if given.trajectory and given.checkpoint is None:
        raise Fault("--trajectory: snapshots are on the way to a net; give that as --checkpoint")
    return given


if __name__ == "__main__":
    with sentences():
        main(sys.argv[1:])
