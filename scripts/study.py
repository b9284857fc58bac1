"""Plasticity lost, and kept: learners on streams on which plain backprop declines; makes docs/LEARNERS.md's table and picture.

    python scripts/study.py --estimate               how long everything takes, by a short piece
    python scripts/study.py                          train what is missing, then print the table
    python scripts/study.py --problem regression --learners backprop cbp --seeds 10
    python scripts/study.py --save docs/LEARNERS.md  the table and the picture, from the runs that there are; trains nothing

For each learner: three values of its main hyper-parameter at three seeds, then paired seeds at the value that is best late.
Each is a `python train.py --multirun` command, printed before it begins. Killed at any moment, the same call goes on.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).parent)]

from plasticity_study import estimate, page, results  # noqa: E402
from plasticity_study.plan import FILE, Entry, Problem, Study, read_study  # noqa: E402

from taskshift.faults import Fault  # noqa: E402


def main() -> None:
    given = _words()
    study = read_study(given.output, given.study)
    problems = study.problems_of(given.problem)
    if given.save is not None:
        page.save(study, problems, given.save)
        return
    work = [(problem, entry) for problem in problems for entry in study.of(problem, given.learners)]
    if not given.no_estimate:
        print(estimate.told(study, work, seeds=given.seeds, further=given.further), flush=True)
    if given.estimate:
        return
    left = [
        f"{problem.name} {entry.name}"
        for problem, entry in work
        if not trained(study, problem, entry, study.seeds_of(entry, given.seeds), given.further)
    ]
    for problem in problems:
        print(page.table(study, problem), flush=True)
    if left:
        raise SystemExit(f"not done: {', '.join(left)}; the same call goes on")


def trained(study: Study, problem: Problem, entry: Entry, seeds: int, further: Sequence[str]) -> bool:
    """Carry out what is missing of a learner's tuning and results; say whether all of it is done."""
    if entry.key is not None:
        words, folder = study.tuning_command(problem, entry), study.folder(problem, entry, tuning=True)
        if not carried_out(words, folder, len(entry.values) * len(study.tuning_seeds), further):
            return False
    try:
        value = results.best_value(study, problem, entry)
        results.refuse_another_value(study, problem, entry, value)
    except Fault as fault:
        print(fault, flush=True)
        return False
    return carried_out(study.command(problem, entry, value, seeds), study.folder(problem, entry), seeds, further)


def carried_out(words: Sequence[str], folder: Path, num_runs: int, further: Sequence[str]) -> bool:
    """Run train.py with these words, unless so many runs of its sweep are over already; say whether it ended well."""
    if is_over(folder, num_runs):
        return True
    print(shlex.join(["python", "train.py", *words, *further]), flush=True)
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *words, *further], check=False)
    return done.returncode == 0 or is_over(folder, num_runs)


def is_over(folder: Path, num_runs: int) -> bool:
    """Whether so many runs of a sweep have come to their ends."""
    return len(results.over(folder)) >= num_runs


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", nargs="+", default=["regression", "permuted"], help="of scripts/plasticity_study/study.yaml")
    parser.add_argument("--learners", nargs="+", help="of the same file; by default all of them")
    parser.add_argument("--seeds", type=int, help="paired seeds, from 0 on; by default as the file says")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="where runs go, and lie")
    parser.add_argument("--estimate", action="store_true", help="print how long it takes, and stop")
    parser.add_argument("--no-estimate", action="store_true", help="begin at once")
    parser.add_argument("--save", type=Path, metavar="PAGE", help="write the table into this page and the picture beside it")
    parser.add_argument("--study", type=Path, default=FILE, help="another file of problems and learners")
    parser.add_argument("further", nargs="*", help="further words of every command, such as hydra.launcher.stack=4")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except Fault as fault:
        raise SystemExit(str(fault)) from None
