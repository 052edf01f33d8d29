#!/bin/bash
# A command of artclf on the nodes of a Slurm job, from the clone, which all nodes see:
#   sbatch deploy/slurm.sh clean --data DATA
# Options before the script's name change what is asked for, such as --nodes=8 or --gpus-per-node=4.
# Ray's processes end with the job.
#SBATCH --job-name=artclf
#SBATCH --nodes=2
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --time=08:00:00
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
export PATH="$PWD/.venv/bin:$PATH"
export RAY_USAGE_STATS_ENABLED=0
export RAY_AUTH_MODE=token  # the token is in the home folder, which all nodes see
ray get-auth-token --generate > /dev/null
# this script runs on the first node; its first address is that of the cluster
head=${ARTCLF_RAY_HEAD:-$(hostname -I | cut -d " " -f 1)}
address=$head:${ARTCLF_RAY_PORT:-6379}
ray start --head --node-ip-address="$head" --port="${address##*:}" --num-cpus="$SLURM_CPUS_ON_NODE"
others=$((SLURM_JOB_NUM_NODES - 1))
if [ "$others" -gt 0 ]; then
  # the single quotes leave SLURM_CPUS_ON_NODE to each node, for they may have other numbers of cores
  srun --nodes="$others" --ntasks="$others" --exclude="$SLURMD_NODENAME" \
    bash -c 'ray start --address="$0" --num-cpus="$SLURM_CPUS_ON_NODE" --block' "$address" &
fi
# nodes that join a little later get their workers then
artclf "$@" --engine ray --address "$address"
