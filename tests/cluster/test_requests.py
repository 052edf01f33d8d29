"""Downloads on the workers of Ray: the same rows and bytes as from this machine; the limits of hosts
hold for all workers together, also when workers, nodes or the command are killed.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from yarl import URL

from artclf.base.errors import StepError
from artclf.cluster import requests
from artclf.cluster.requests import ClientOnWorkers, sent_by_workers
from artclf.cluster.workers import connection
from artclf.data.catalogue import read_catalogue
from artclf.data.client import Client, Question
from artclf.data.intake import Failure
from artclf.download import fetch_lists

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TOTAL = 8  # requests under way of a worker


@pytest.fixture(scope="module")
def faults():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import faults

        yield faults


@pytest.fixture(scope="module")
def cluster(request, quick_start, faults):
    """Two nodes with a core each; this process is connected to the first."""
    ray.cloudpickle.register_pickle_by_value(request.module)
    with faults.nodes([1, 1]) as cluster, connection(cluster.address):
        yield cluster


@pytest.fixture
def hosts(faults):
    with faults.Hosts(12) as hosts:
        yield hosts


def lists_of(hosts, folder: Path, pictures: int) -> Path:
    lists = folder / "lists"
    lists.mkdir()
    number = len(hosts.addresses)
    for period in ("one", "two"):
        urls = [hosts.url(i % number, i) for i in range(number * pictures)]
        half = urls[::2] if period == "one" else urls[1::2]
        (lists / f"urls_{period}.csv").write_text("\n".join(["url", *half]) + "\n")
    return lists


def run(lists: Path, data: Path, **options):
    options = {"allow_private": True, "backoff": 0.05, "total": TOTAL, **options}
    return fetch_lists(lists, data, **options)


def check(hosts, data: Path, most_again: int):
    """All pictures are there once, each host was treated as it wants, and at most `most_again`
    pictures were fetched again.
    """
    rows = read_catalogue(data)
    assert set(rows.status) <= {"ok", "failed"}
    assert set(rows.reason.dropna()) <= {"http 404", "disallowed by robots.txt"}
    files = {path.relative_to(data).as_posix() for path in data.glob("raw/*/*")}
    assert files == set(rows.file.dropna()) and not (data / "tmp").exists()
    for row in rows[rows.status == "ok"].itertuples():
        assert (data / row.file).read_bytes().startswith(hosts.picture)
    assert hosts.broken_limits(per_host=2) == []
    assert hosts.fetched_again() <= most_again


def test_rows_and_bytes_are_those_of_this_machine(cluster, hosts, tmp_path):
    lists = lists_of(hosts, tmp_path, 8)
    folders = [tmp_path / "here", tmp_path / "there"]
    summary = run(lists, folders[0])
    hosts.forget()
    with sent_by_workers(folders[1]) as engine:
        assert run(lists, folders[1], engine=engine).equals(summary)
    here, there = map(read_catalogue, folders)
    assert here.drop(columns="tries").equals(there.drop(columns="tries"))
    is_patient = here.url.map(lambda url: hosts.of(url).kind == "patient")
    assert here.tries[~is_patient].equals(there.tries[~is_patient])
    assert here.tries.max() == 2 and set(here.http_status.dropna()) == {200, 404}
    for file in here.file.dropna():
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()
    check(hosts, folders[1], most_again=0)
