#!/usr/bin/env bash
# A SLURM of one node for tests: no systemd, no cgroups, everything below one folder, as root.
#
#   scripts/slurm/up.sh FOLDER [--accounting]     then: export SLURM_CONF=FOLDER/etc/slurm.conf
#   scripts/slurm/down.sh FOLDER
#
# Debian packages: slurm-wlm munge; with --accounting also slurmdbd mariadb-server-core mariadb-client-core.
# Two partitions: gpu (the default) and prio, whose jobs preempt those of gpu. Four GPUs that are clones of /dev/null.
set -euo pipefail

base=${1:?give a folder for the cluster}
accounting=${2:-}
cpus=8 gpus=4
port=$((20000 + RANDOM % 10000)) # and the three after it: two clusters of one machine do not meet

mkdir -p "$base"/{etc,state,spool,log,run,munge}
base=$(cd "$base" && pwd)
chmod 755 "$base" "$base"/*
chmod 700 "$base/munge"
if [ -s "$base/run/munged.pid" ] && kill -0 "$(cat "$base/run/munged.pid")" 2>/dev/null; then
    echo "a cluster is up in $base already" >&2
    exit 1
fi

start_munge() {
    if [ ! -s "$base/munge/key" ]; then
        dd if=/dev/urandom of="$base/munge/key" bs=128 count=1 status=none
        chmod 400 "$base/munge/key"
    fi
    munged --key-file="$base/munge/key" --socket="$base/run/munge.sock" --pid-file="$base/run/munged.pid" \
        --log-file="$base/log/munged.log" --seed-file="$base/munge/seed"
}

start_database() {
    [ -d "$base/db/mysql" ] || mariadb-install-db --no-defaults --user=root --datadir="$base/db" \
        --auth-root-authentication-method=normal --skip-test-db >"$base/log/database.log" 2>&1
    mariadbd --no-defaults --user=root --datadir="$base/db" --socket="$base/run/db.sock" --port=$((port + 3)) --bind-address=127.0.0.1 \
        --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 --pid-file="$base/run/mariadbd.pid" \
        --log-error="$base/log/mariadbd.log" </dev/null >/dev/null 2>&1 &
    for _ in $(seq 100); do
        mariadb --no-defaults -S "$base/run/db.sock" -uroot 2>/dev/null <<SQL && break
create database if not exists slurm_acct_db;
create user if not exists slurm@'127.0.0.1' identified by 'test';
create user if not exists slurm@localhost identified by 'test';
grant all on slurm_acct_db.* to slurm@'127.0.0.1';
grant all on slurm_acct_db.* to slurm@localhost;
SQL
        sleep 0.1
    done
    cat >"$base/etc/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$base/run/munge.sock
DbdHost=localhost
DbdPort=$((port + 2))
SlurmUser=root
LogFile=$base/log/slurmdbd.log
PidFile=$base/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((port + 3))
StorageUser=slurm
StoragePass=test
StorageLoc=slurm_acct_db
CONF
    chmod 600 "$base/etc/slurmdbd.conf"
}

storage_lines() {
    if [ "$accounting" = --accounting ]; then
        echo "AccountingStorageType=accounting_storage/slurmdbd"
        echo "AccountingStorageHost=localhost"
        echo "AccountingStoragePort=$((port + 2))"
        echo "AccountingStoragePass=$base/run/munge.sock"
    else
        echo "AccountingStorageType=accounting_storage/none"
    fi
}

write_configuration() {
    # cred_expire: a requeued job is held for as long as its credential lives, two minutes by default
    cat >"$base/etc/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$base/run/munge.sock,cred_expire=5
CredType=cred/munge
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$base/state
SlurmdSpoolDir=$base/spool
SlurmctldPidFile=$base/run/slurmctld.pid
SlurmdPidFile=$base/run/slurmd.pid
SlurmctldLogFile=$base/log/slurmctld.log
SlurmdLogFile=$base/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
GresTypes=gpu
JobRequeue=1
KillWait=5
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
$(storage_lines)
NodeName=node1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$cpus Boards=1 Sockets=1 CoresPerSocket=$cpus ThreadsPerCore=1 RealMemory=16000 Gres=gpu:$gpus State=UNKNOWN
PartitionName=gpu  Nodes=node1 Default=YES MaxTime=INFINITE DefMemPerCPU=500 PriorityTier=1 GraceTime=5 State=UP
PartitionName=prio Nodes=node1 Default=NO  MaxTime=INFINITE DefMemPerCPU=500 PriorityTier=9 State=UP
CONF
    for number in $(seq 0 $((gpus - 1))); do
        [ -e "$base/run/gpu$number" ] || mknod "$base/run/gpu$number" c 1 3
    done
    echo "NodeName=node1 Name=gpu File=$base/run/gpu[0-$((gpus - 1))]" >"$base/etc/gres.conf"
}

start_slurm() {
    export SLURM_CONF=$base/etc/slurm.conf
    if [ "$accounting" = --accounting ]; then
        slurmdbd
        for _ in $(seq 100); do
            timeout 2 sacctmgr -n show cluster >/dev/null 2>&1 && break
            sleep 0.1
        done
        sacctmgr -i add cluster test >/dev/null 2>&1 || true
    fi
    slurmctld
    slurmd -N node1
    for _ in $(seq 100); do
        [ "$(timeout 2 sinfo -h -p gpu -o %T 2>/dev/null)" = idle ] && return
        sleep 0.1
    done
    echo "the node did not come up; see $base/log" >&2
    exit 1
}

start_munge
[ "$accounting" != --accounting ] || start_database
write_configuration
start_slurm
echo "export SLURM_CONF=$base/etc/slurm.conf"
