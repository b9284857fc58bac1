"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import torch

from lla_benchmarks.lines import finish

FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve", "bf16")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def machine(device: torch.device) -> dict[str, str]:
    """The processor with its caches and flags, the accelerator, and the versions that compute."""
    facts = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "caches of a core": _caches() or "unknown",
        "flags": ", ".join(flag for flag in FLAGS if flag in _told("flags", "Features").split()) or "unknown",
        "threads": f"{torch.get_num_threads()} of torch's",
        "load before": f"{os.getloadavg()[0]:.2f} processes waiting or running",
        "versions": f"torch {torch.__version__}, Python {platform.python_version()}, {platform.system()}",
    }
    return facts | ({"accelerator": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def matmul_rates(device: torch.device, side: int) -> dict[torch.dtype, float]:
    """Floating-point operations a second of a square matrix product, the best of some, for each dtype that ours is run in."""
    return {dtype: _matmul_rate(device, dtype, side) for dtype in (torch.float32, torch.bfloat16)}


def _matmul_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    matrix = torch.randn(side, side, device=device).to(dtype)
    seconds = []
    for _ in range(12):
        finish(device)
        begin = time.perf_counter()
        matrix @ matrix
        finish(device)
        seconds.append(time.perf_counter() - begin)
    return 2 * side**3 / min(seconds)


def _processor() -> str:
    return _told("model name") or platform.processor() or platform.machine()


def _told(*names: str) -> str:
    """What /proc/cpuinfo says of the first core under one of `names`, "" where there is no such file or line."""
    file = Path("/proc/cpuinfo")
    pairs = [line.partition(":") for line in (file.read_text().splitlines() if file.exists() else [])]
    return next((value.strip() for name, _, value in pairs if name.strip() in names), "")


def _caches() -> str:
    """Such as "L1 Data 32K, L2 Unified 1024K"."""
    folders = sorted(CACHES.glob("index*"))
    kinds = [[(folder / name).read_text().strip() for name in ("level", "type", "size")] for folder in folders]
    return ", ".join(f"L{level} {kind} {size}" for level, kind, size in kinds)
