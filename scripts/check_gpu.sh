#!/usr/bin/env bash
# Checks what must hold on a GPU, on a machine with one CUDA card, Python 3.11 or later with torch 2.9 or later, and no network:
#     scripts/check_gpu.sh pack           where there is a network: what that machine may lack, as wheels into build/gpu_wheels
#     scripts/check_gpu.sh [OPTION…]      there: installs what is missing from these, then scripts/check_gpu.py OPTION…
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=build/gpu_wheels venv=build/gpu_venv python=${PYTHON:-python3}

if [ "${1:-}" = pack ]; then
    [ -x .venv/bin/python ] || { echo "make setup comes first: the wheels are those of .venv"; exit 2; }
    mkdir -p "$wheels"
    .venv/bin/python -m pip freeze --exclude-editable | grep -Eiv '^(taskshift|torch|torchvision|triton|nvidia|cuda|sympy|networkx|pip|setuptools|wheel)\b' > "$wheels/list.txt"
    .venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir "$wheels" -r "$wheels/list.txt"
    du -sh "$wheels"
    exit
fi

"$python" -c 'import sys, torch; assert sys.version_info >= (3, 11), "Python 3.11 or later is needed"; print("torch", torch.__version__)'
if [ ! -x "$venv/bin/python" ]; then
    "$python" -m venv "$venv"  # over what that Python has, which may itself be of an environment
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$python" -c 'import sys; print(*(path for path in sys.path if path.endswith("-packages")), sep="\n")' > "$site/beneath.pth"
fi
if [ -d "$wheels" ]; then
    "$venv/bin/python" -m pip install --quiet --no-index --no-deps --find-links "$wheels" -r "$wheels/list.txt"
fi
"$venv/bin/python" -m pip install --quiet --no-index --no-deps --no-build-isolation -e . || export PYTHONPATH="$PWD/src"
exec "$venv/bin/python" scripts/check_gpu.py "$@"
