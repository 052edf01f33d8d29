"""Several processes of one training: the losses of a single one, one process that writes, and an
end when one of them ends.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from fastcore.foundation import defaults as fastai_defaults
from torch import distributed

from artclf import train
from artclf.base.errors import InputError, SettingError, StepError
from artclf.model import ranks
from artclf.model.store import Store

ROOT = Path(__file__).resolve().parents[2]
# neither a batch of 7 nor the 5 pictures of valid can be divided by 2
SETTINGS = {
    "arch": "efficientnet_lite0",
    "size": 64,
    "batch_size": 7,
    "unfreeze_from": 3,
    "lr": 0.02,
}
EPOCHS = (2, 2)
STORES = ("features.db", "pixels.db")

# each process notes what the others tell it, the weights after every epoch, and what it wrote
TRAINING = """
import hashlib, json, os, sys
from fastai.callback.core import Callback
from fastai.torch_core import get_model, num_distrib
from artclf import train
from artclf.base.errors import StepError
from artclf.model import ranks

data, out, notes, epochs, settings = sys.argv[1:]
rank = os.environ["RANK"]
written = os.open(f"{notes}/written-{rank}", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

def audit(event, arguments):
    is_written = event == "open" and arguments[1] and arguments[1][0] in "wax"
    if is_written or event in ("os.rename", "os.remove"):
        if str(arguments[0]).startswith((data, out)):
            os.write(written, f"{arguments[0]}\\n".encode())

class Weights(Callback):
    order, fit_depends_on_it, found, pictures = 1, False, [], []

    def before_batch(self):
        if self.x.ndim == 4:  # what others compute is black
            self.pictures.append(int((self.x.flatten(1).std(1) > 0.01).sum()))

    def after_epoch(self):
        content = hashlib.sha256()
        for value in get_model(self.learn.model).state_dict().values():
            content.update(value.numpy().tobytes())
        self.found.append(content.hexdigest())

def what_is_told():
    ranks.check_same("number", 2)
    try:
        ranks.check_same("number", rank)
        refused = ""
    except StepError as error:
        refused = str(error)
    own = list(ranks.own_items(range(5)))
    return ranks.of_first(rank), refused, own, ranks.share_of(6), ranks.share_of(5), num_distrib()

if __name__ == "__main__":
    sys.addaudithook(audit)
    with ranks.connected(2):
        print("PRINTED ONCE")
        print("PRINTED ONCE", file=sys.stderr)
        told = what_is_told()
        train.fit(data, out, *json.loads(epochs), final=False, cbs=[Weights], **json.loads(settings))
    with open(f"{notes}/{rank}.json", "w") as file:
        json.dump({"told": told, "weights": Weights.found, "pictures": Weights.pictures}, file)
"""


def environment(**more: str) -> dict:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def start_two(*arguments) -> list[subprocess.Popen]:
    """Two processes as a launcher starts them, with nobody who looks after them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        of_launcher = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                env=environment(**of_launcher),
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


@pytest.fixture
def fresh_data(drawn, tmp_path) -> Path:
    return shutil.copytree(drawn, tmp_path / "data", ignore=shutil.ignore_patterns(*STORES))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_two_processes_have_the_losses_of_one_and_go_on_after_a_kill(
    fresh_data, tmp_path, no_workers
):
    one, two, notes = (tmp_path / name for name in ("one", "two", "notes"))
    data_of_one = shutil.copytree(fresh_data, tmp_path / "data of one")
    train.fit(data_of_one, one, *EPOCHS, final=False, **SETTINGS)
    expected = pd.read_csv(one / "history.csv").drop(columns="seconds")
    notes.mkdir()
    program = tmp_path / "training.py"
    program.write_text(TRAINING)
    arguments = [program, fresh_data, two, notes, json.dumps(EPOCHS), json.dumps(SETTINGS)]

    processes = start_two(*arguments)
    try:
        while not (two / "history.csv").exists() or len(pd.read_csv(two / "history.csv")) < 3:
            assert all(process.poll() is None for process in processes), processes
            time.sleep(0.01)
        processes[1].send_signal(signal.SIGKILL)
        _, said = processes[0].communicate(timeout=60)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[0].returncode == 1 and ranks.ENDED in said
    assert not list(notes.glob("*.json"))

    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
    ]
    done = subprocess.run(
        [*command, *map(str, arguments)], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Going on after epoch" in done.stdout
    assert done.stdout.count("PRINTED ONCE") == done.stderr.count("PRINTED ONCE") == 1
    found = pd.read_csv(two / "history.csv").drop(columns="seconds")
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3, atol=1e-5)
    assert len(expected) == 4 and expected.train_loss.nunique() == 4

    first, second = (json.loads((notes / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["weights"] == second["weights"] and first["weights"]
    assert set(first["pictures"]) == set(second["pictures"]) == {3, 4}
    assert "history.csv" in (notes / "written-0").read_text()
    assert (notes / "written-1").read_text() == ""  # in both runs
    refused = first["told"][1]
    assert "differ in number" in refused
    assert first["told"] == ["0", refused, [0, 2, 4], [0, 1, 2], [0, 1, 2], 0]
    assert second["told"] == ["0", refused, [1, 3], [3, 4, 5], [3, 4, 0], 0]
    features = Store(fresh_data / "features.db")
    assert len(features.keys()) == len(Store(data_of_one / "features.db").keys())


@pytest.mark.slow
def test_torchrun_and_accelerate_start_the_same_training(fresh_data, tmp_path):
    """Both start two processes on a machine without GPUs, accelerate by its --multi_gpu."""
    launchers = {
        "torchrun": ("torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        "accelerate": ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
    }
    training = ["-m", "artclf", "train", "--data", fresh_data, "--epochs", 1, "--no-final"]
    training += ["--arch", "efficientnet_lite0", "--size", 64, "--batch-size", 8]
    training += ["--unfrozen-epochs", 1, "--processes", 2]
    histories = {}
    for name, launcher in launchers.items():
        out = tmp_path / name
        done = subprocess.run(
            [sys.executable, "-m", *launcher, *map(str, training), "--out", str(out)],
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        histories[name] = pd.read_csv(out / "history.csv").drop(columns="seconds")
    pd.testing.assert_frame_equal(histories["torchrun"], histories["accelerate"], rtol=1e-3)
    assert len(histories["torchrun"]) == 2


@pytest.mark.slow
def test_what_accelerate_starts_on_cpus_is_refused(fresh_data, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
        + ["-m", "artclf", "train", "--data", str(fresh_data), "--out", str(tmp_path / "out")],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and "accelerate started a single process" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_launcher_that_started_another_number_is_named(command, drawn, tmp_path, monkeypatch):
    arguments = ("train", "--data", drawn, "--out", tmp_path)
    code, _, errors = command(*arguments, "--processes", 2)
    assert code == 2 and "this is a single process" in errors and "torchrun" in errors
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    code, _, errors = command(*arguments)
    assert code == 2 and "accelerate started a single process" in errors
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, errors = command(*arguments)
    assert code == 2 and "no launcher started this process" in errors
    monkeypatch.delenv("WORLD_SIZE")
    assert not list(tmp_path.iterdir())
    ranks._check_launcher(0, 1)
    ranks._check_launcher(2, None)
    with pytest.raises(SettingError, match="2 processes"):
        ranks._check_launcher(2, 3)


@pytest.fixture
def launched(monkeypatch):
    """As a launcher of a single process sets things, which is a group of one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(fastai_defaults, "use_cuda", fastai_defaults.use_cuda)
    for name, value in (
        ("RANK", "0"),
        ("LOCAL_RANK", "0"),
        ("WORLD_SIZE", "1"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", str(port)),
    ):
        monkeypatch.setenv(name, value)
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


def raise_(error: Exception):
    raise error


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("do", "kind", "words"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGTERM), StepError, ranks.ENDED),
        (lambda: raise_(RuntimeError("[a/gloo/b.cc:1] closed")), StepError, ranks.ENDED),
        (lambda: raise_(distributed.DistBackendError("NCCL")), StepError, ranks.ENDED),
        (lambda: raise_(RuntimeError("a bug")), RuntimeError, "a bug"),
        (lambda: raise_(StepError("the loss is nan")), StepError, "the loss is nan"),
    ],
)
def test_how_a_process_of_several_ends(launched, do, kind, words):
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(kind) as raised, ranks.connected(1):
        assert ranks.are_several() and "WORLD_SIZE" not in os.environ
        do()
    assert str(raised.value) == words
    assert signal.getsignal(signal.SIGTERM) == handler and os.environ["WORLD_SIZE"] == "1"


def test_afterwards_the_process_is_alone(launched):
    with ranks.connected():
        assert ranks.are_several() and ranks.is_first() and ranks.of_first(3) == 3
    assert not ranks.are_several() and ranks.is_first() and ranks.of_first(4) == 4


@pytest.mark.parametrize("settings", [{"cached": False}, {"pretrained": False}, {"depth": 1}])
def test_what_several_processes_do_not_train_is_refused(
    launched, drawn, tmp_path, settings, no_workers
):
    with (
        ranks.connected(),
        pytest.raises(InputError, match="several processes learn from what is stored"),
    ):
        train.learner(drawn, tmp_path, "efficientnet_lite0", size=64, **settings)


def test_several_processes_need_no_cluster(launched, command, drawn, tmp_path):
    arguments = ("train", "--data", drawn, "--out", tmp_path, "--engine", "ray")
    code, _, errors = command(*arguments)
    assert code == 2 and "share out the features themselves" in errors
    assert not list(tmp_path.iterdir())


def test_the_first_process_decides_and_others_must_be_alike(
    launched, drawn, tmp_path, monkeypatch, no_workers
):
    with ranks.connected():
        learn = train.learner(drawn, tmp_path, "efficientnet_lite0", size=64, batch_size=8)
        monkeypatch.setattr(ranks, "of_first", lambda state: {**state, "f1": 0.25})
        with learn.no_bar():
            learn.fit_one_cycle(1, 1e-2)
        assert learn.best_epoch.f1 == 0.25

        def gather(values, value):
            values[:] = [value, ("another key", value[1])]

        monkeypatch.setattr(distributed, "all_gather_object", gather)
        with pytest.raises(StepError, match="differ in settings, versions or data"):
            learn.fit_one_cycle(1, 1e-2)
