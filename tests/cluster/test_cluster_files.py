"""What `deploy/` holds for clusters, checked as far as it goes on one machine."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from artclf import cli

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def options_are_known(command: str):
    """Whether artclf has the step and the options of `command`, `... artclf STEP OPTIONS`."""
    step, *options = shlex.split(command.partition("artclf ")[2])
    shown = CliRunner().invoke(cli.app, [step, "--help"], env={"COLUMNS": "200"}).output
    return all(option in shown for option in options if option.startswith("--"))


def test_the_image_has_the_ray_that_the_tests_have():
    pins = (ROOT / ".ci/constraints.txt").read_text("utf-8")
    [version] = re.findall(r"^ray==([\d.]+)", pins, re.MULTILINE)
    image = (DEPLOY / "ray.Dockerfile").read_text("utf-8")
    assert f"FROM rayproject/ray:{version}-py312-cpu\n" in image
    job = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text("utf-8"))
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == version
    sources = re.findall(r"^COPY --chown=ray (.+) \S+$", image, re.MULTILINE)
    assert all((ROOT / source).exists() for line in sources for source in line.split())


def test_the_pods_share_what_the_command_reads():
    spec = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text("utf-8"))["spec"]
    assert options_are_known(spec["entrypoint"])
    cluster = spec["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        [mount] = container["volumeMounts"]
        assert mount["name"] == pod["volumes"][0]["name"]
        assert f" {mount['mountPath']}/data " in spec["entrypoint"]
        assert container["resources"]["limits"] == container["resources"]["requests"]


@pytest.mark.slow  # imports Ray
def test_ray_up_takes_the_file():
    pytest.importorskip("ray")
    from ray.autoscaler._private.util import prepare_config, validate_config

    text = (DEPLOY / "ray-cluster.yaml").read_text("utf-8")
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    machines = len(config["provider"]["worker_ips"])
    assert config["available_node_types"]["local.cluster.node"]["min_workers"] == machines
    [command] = re.findall(r'bin/(artclf [^"]+)"', text)
    assert options_are_known(command)


def program(folder: Path, name: str, text: str):
    file = folder / name
    file.write_text(f"#!/bin/bash\n{text}\n")
    file.chmod(0o755)


def test_a_slurm_job_starts_ray_on_all_nodes_and_the_command_on_it(tmp_path):
    """`srun` and `scontrol` are programs of the test: the first shows what it was to run."""
    bin_folder = tmp_path / "clone/.venv/bin"
    bin_folder.mkdir(parents=True)
    program(
        bin_folder, "scontrol", '[ "$*" = "show hostnames one[1-2]" ] && printf "one1\\none2\\n"'
    )
    program(bin_folder, "srun", 'printf "%s\\n" "$RAY_USAGE_STATS_ENABLED" "$@"')
    job = {
        "SLURM_SUBMIT_DIR": str(tmp_path / "clone"),
        "SLURM_JOB_NODELIST": "one[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "PATH": os.environ["PATH"],
    }
    script = ["bash", DEPLOY / "slurm.sh", "clean", "--data", "my data"]
    done = subprocess.run(script, env=job, capture_output=True, text=True, check=True)
    ray = "ray symmetric-run --address one1:6379 --min-nodes 2 --"
    artclf = ["artclf", "clean", "--data", "my data", "--engine", "ray", "--address", "one1:6379"]
    assert done.stdout.splitlines() == ["0", "--nodes=2", "--ntasks=2", *ray.split(), *artclf]
    assert options_are_known(shlex.join(artclf))
