"""A cluster that ends under a command: that ends, too, with a line, and the same command goes on."""

import subprocess
import sys
from pathlib import Path
from platform import node

import psutil
import pytest

from artclf.data.catalogue import read_catalogue

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SECONDS = 60  # after which Ray ends a process whose cluster has no head

# the command line that waits less long for the head, with a command whose jobs sleep
PROGRAM = """
import time
from artclf import cli
from artclf.cluster import connecting, workers

connecting.SECONDS_TO_ANSWER = 10

@cli.app.command()
def sleep(address: str):
    with workers.connected(address) as map_jobs:
        for _ in map_jobs(time.sleep, [0.2] * 10**6, chunk_size=1):
            print("slept", flush=True)

cli.main()
"""
COMMAND = [sys.executable, "-c", PROGRAM]


@pytest.fixture(scope="module")
def faults():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import faults

        yield faults


@pytest.fixture
def cluster(quick_start, faults):
    """A node with two cores, to which this process is not connected."""
    with faults.nodes([2]) as cluster:
        yield cluster


def kill_head(cluster, faults):
    psutil.Process(cluster.head_node.all_processes["gcs_server"][0].process.pid).kill()


def kill_all(cluster, faults):
    kill_head(cluster, faults)
    kill_machine(cluster, faults)


def kill_machine(cluster, faults):
    raylet = faults.raylet_of(cluster.head_node)
    for process in [raylet, *raylet.children(recursive=True)]:
        process.kill()


GONE = "is gone, it has not answered for 10 seconds"
LOST = f"has lost {node()}, the machine of this command"


def check_end(command: subprocess.Popen, address: str, problem: str):
    """The command ends before Ray ends it, with the one line that says so."""
    _, errors = command.communicate(timeout=SECONDS)
    lines = [line for line in errors.splitlines() if line.startswith("artclf: ")]
    assert lines == [
        f"artclf: the Ray cluster at {address} {problem}: start it again, and the same command goes on "
        "where it was"
    ], errors
    assert command.returncode == 1 and "Traceback" not in errors
    assert f"Joined the Ray cluster at {address}: 2 cores.\n" in errors


def test_a_download_whose_cluster_ends(cluster, faults, tmp_path):
    with faults.Hosts(2, kinds=("slow",)) as hosts:
        urls = [hosts.url(i % 2, i) for i in range(1000)]
        (tmp_path / "urls_all.csv").write_text("\n".join(["url", *urls]) + "\n")
        arguments = ["download", "--lists", tmp_path, "--data", tmp_path / "data"]
        arguments += ["--allow-private", "--engine", "ray", "--address", cluster.address]
        command = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True)
        while hosts.given() < 10:
            assert command.poll() is None
        kill_all(cluster, faults)
        check_end(command, cluster.address, GONE)
    rows = read_catalogue(tmp_path / "data")
    assert len(rows) == 1000
    assert {"ok", "pending"} <= set(rows.status)
    assert set(rows.reason.dropna()) <= {"http 404"}  # nothing is taken for failed
    assert not list((tmp_path / "data").glob(".seen*"))


@pytest.mark.parametrize("kill, problem", [(kill_head, GONE), (kill_machine, LOST)])
def test_jobs_whose_cluster_ends(cluster, faults, kill, problem):
    command = subprocess.Popen(
        [*COMMAND, "sleep", cluster.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout.readline() == "slept\n"
    kill(cluster, faults)
    check_end(command, cluster.address, problem)
