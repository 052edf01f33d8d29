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


def test_whoever_starts_a_cluster_by_a_file_asks_for_a_token():
    job = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text("utf-8"))
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    up = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text("utf-8"))
    for commands in (up["head_start_ray_commands"], up["worker_start_ray_commands"]):
        [start] = [command for command in commands if " start " in command]
        assert start.startswith("RAY_AUTH_MODE=token ")


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
    """The programs that the script calls are the test's: they write how they were called. Slurm's
    `srun` starts what it is given on another node, which has fewer cores than the first.
    """
    bin_folder = tmp_path / "clone/.venv/bin"
    bin_folder.mkdir(parents=True)
    program(bin_folder, "hostname", 'echo "10.0.0.1 10.0.1.1"')
    for name in ("ray", "srun", "artclf"):
        call = f'printf "%s\\n" "$RAY_AUTH_MODE" "$@" >> {shlex.quote(str(tmp_path))}/{name}'
        if name == "srun":
            call += '\nshift 3\nSLURM_CPUS_ON_NODE=8 exec "$@"'
        program(bin_folder, name, call)
    job = {
        "SLURM_SUBMIT_DIR": str(tmp_path / "clone"),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_ON_NODE": "16",
        "SLURMD_NODENAME": "one1",
        "PATH": os.environ["PATH"],
    }
    script = f"source {shlex.quote(str(DEPLOY / 'slurm.sh'))} clean --data 'my data'; wait"
    subprocess.run(["bash", "-c", script], env=job, check=True)
    calls = {
        file.name: file.read_text().splitlines() for file in tmp_path.iterdir() if file.is_file()
    }
    address = "10.0.0.1:6379"
    token = "token get-auth-token --generate"
    head = "token start --head --node-ip-address=10.0.0.1 --port=6379 --num-cpus=16"
    others = f"token start --address={address} --num-cpus=8 --block"
    assert calls["ray"] == [*token.split(), *head.split(), *others.split()]
    assert calls["srun"][:4] == ["token", "--nodes=1", "--ntasks=1", "--exclude=one1"]
    command = ["clean", "--data", "my data", "--engine", "ray", "--address", address]
    assert calls["artclf"] == ["token", *command]
    assert options_are_known(f"artclf {shlex.join(command)}")
