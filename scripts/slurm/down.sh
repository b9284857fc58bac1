#!/usr/bin/env bash
# Stop what up.sh started in FOLDER, by the process ids that it left there; the folder stays.
set -uo pipefail

base=$(cd "${1:?give a cluster folder}" && pwd)
export SLURM_CONF=$base/etc/slurm.conf

jobs=$(timeout 5 squeue -h -o %A 2>/dev/null | sort -u)
if [ -n "$jobs" ]; then
    # shellcheck disable=SC2086
    timeout 5 scancel --quiet --full $jobs
    for _ in $(seq 50); do
        [ -n "$(timeout 2 squeue -h 2>/dev/null)" ] || break
        sleep 0.1
    done
fi
for daemon in slurmd slurmctld slurmdbd mariadbd munged; do
    [ -s "$base/run/$daemon.pid" ] || continue
    process=$(cat "$base/run/$daemon.pid")
    kill "$process" 2>/dev/null
    for _ in $(seq 100); do
        kill -0 "$process" 2>/dev/null || break
        sleep 0.1
    done
    kill -9 "$process" 2>/dev/null && echo "$daemon ($process) had to be killed"
    rm -f "$base/run/$daemon.pid"
done
exit 0
