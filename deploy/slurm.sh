#!/bin/bash
# A command of artclf on the nodes of a Slurm job, from the clone, which all nodes see:
#   sbatch deploy/slurm.sh clean --data DATA
# Options before the script's name change what is asked for, such as --nodes=8 or --gpus-per-node=4.
# Each node must be the job's alone: Ray ends what it finds of itself on a node.
#SBATCH --job-name=artclf
#SBATCH --nodes=2
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --time=08:00:00
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
export PATH="$PWD/.venv/bin:$PATH"
export RAY_USAGE_STATS_ENABLED=0
address=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):${ARTCLF_RAY_PORT:-6379}
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
  ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" -- \
  artclf "$@" --engine ray --address "$address"
