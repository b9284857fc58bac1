"""Recordings compiled by Inductor, in place on fixed tensors, with a cache that survives kills."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from taskshift.execution.broadcasts import prepare_broadcasts
from taskshift.execution.recording import Recording, in_place
from taskshift.execution.small_products import spread_small_products

log = logging.getLogger(__name__)

CACHE = "TASKSHIFT_CACHE"
"""The environment's variable that says where compiled programs are kept."""

FAILURES = (RuntimeError, ImportError, OSError, AttributeError, AssertionError)
"""What Inductor, or loading a library that it has built, ends with."""


class UncompilableError(RuntimeError):
    """A recording that Inductor does not compile here."""


def compiler_for(device: torch.device) -> str | None:
    """The compiler that Inductor would use for programs on `device`, None where it is not installed."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return "triton" if has_triton() else None
    return shutil.which(os.environ.get("CXX", "g++"))


def compiled(recording: Recording, arguments: Sequence[Tensor]) -> Callable[[list[Tensor]], object]:
    """The recording `in_place`, compiled for arguments of these shapes and strides; called with a list of them.

    A cache with half a library in it, left by a process that was killed, fails it: the program is then compiled in a new folder,
    and where it compiles there the cache is thrown away. Raises UncompilableError.
    """
    try:
        with _cache(cache_folder()):
            return _by_inductor(recording, arguments)
    except FAILURES as error:
        why = _first_line(error)
    from torch._inductor.utils import clear_caches

    clear_caches()  # what this process has read of it
    try:
        with tempfile.TemporaryDirectory(prefix="taskshift-") as folder, _cache(Path(folder)):
            made = _by_inductor(recording, arguments)
    except FAILURES as error:
        raise UncompilableError(_first_line(error)) from error
    log.warning("the compiler's cache %s is thrown away: %s", cache_folder(), why)
    _throw_away(cache_folder())
    return made


def cache_folder() -> Path:
    """Where compiled programs are kept for all runs of a user."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taskshift"
    return Path(os.environ.get(CACHE) or default) / f"inductor-{torch.__version__}"


def _by_inductor(recording: Recording, arguments: Sequence[Tensor]) -> Callable[[list[Tensor]], object]:
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes = [mode.from_tensor(tensor) for tensor in arguments]
    num_read = len(fakes) - 2  # without the row and the outputs that it writes
    finer: fx.GraphModule = make_fx(
        recording.graph, decomposition_table=select_decomp_table(), tracing_mode="real", _allow_non_fake_inputs=True
    )(*fakes[:num_read])
    spread_small_products(finer.graph)
    prepare_broadcasts(finer.graph)
    graph = in_place(finer, recording.num_changing)
    # one process, for a pool's workers would outlive a run that is killed; no look at shapes in every step, they are fixed
    with config.patch(compile_threads=1, size_asserts=False), torch._guards.tracing(torch._guards.TracingContext(mode)):
        return compile_fx_inner(graph, fakes).current_callable  # what it does around that costs as much as a small step


@contextmanager
def _cache(folder: Path) -> Iterator[None]:
    """Let Inductor keep its files in `folder`."""
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)
        else:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


def _throw_away(folder: Path) -> None:
    """Other processes may be at work in it: it goes at one stroke, and they begin another."""
    aside = folder.with_name(f"{folder.name}.{uuid4().hex[:8]}.partial")
    try:
        folder.rename(aside)
    except OSError:
        return
    shutil.rmtree(aside, ignore_errors=True)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
