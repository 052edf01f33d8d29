"""Ranks: several processes that a launcher (torchrun, or accelerate) started for one training.

While the body is frozen, each process learns the same head from the same stored features. Once it
is unfrozen, every process has the same batches, of which it computes a share: `SharedBatches`. So
each epoch is that of a single process, but for rounding. The first process alone writes and prints;
the others read what it wrote, from folders that all of them see.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path

import torch
from fastai.callback.core import Callback
from fastai.torch_core import default_device, find_bs, get_model
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from artclf.base.errors import SettingError, StepError
from artclf.model import network

PATIENCE = timedelta(days=1)  # the others wait while the first process exports
LAUNCH = "torchrun --standalone --nproc_per_node N -m artclf train ..."
# what launchers tell each process
OF_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
ENDED = (
    "another process of this training ended, or the launcher was told to end it: look at its "
    "report. The same command goes on after the last finished epoch"
)


@contextmanager
def connected(processes: int | None = None) -> Iterator[None]:
    """A context manager that connects the processes of a launcher; does nothing without one.

    On a machine with NVIDIA GPUs each process has one, by its number on the machine; elsewhere all
    are on the CPU. `processes` is how many there must be. Raises SettingError where the launcher
    started another number, StepError where a machine has fewer GPUs than processes, or where
    another process ends before the training does.
    """
    is_launched = all(name in os.environ for name in OF_LAUNCHERS)
    count = int(os.environ["WORLD_SIZE"]) if is_launched else 0
    _check_launcher(count, processes)
    if not count:
        yield
        return
    _join()
    # fastai would collect losses and predictions of all processes where it finds this, but
    # each process has all of them
    world_size = os.environ.pop("WORLD_SIZE")
    handler = signal.signal(signal.SIGTERM, _end)
    try:
        with _silent_unless_first():
            yield
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "/gloo/" in str(error):
            raise StepError(ENDED) from error
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)
        os.environ["WORLD_SIZE"] = world_size
    distributed.destroy_process_group()


def _check_launcher(count: int, wanted: int | None):
    """Raise SettingError where a launcher did not start what was asked of it: `accelerate launch
    --cpu` starts a single process without a word. fastai would read a WORLD_SIZE that is set alone.
    """
    if not count and os.environ.get("WORLD_SIZE", "1") != "1":
        raise SettingError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']}, but no launcher started this process: start "
            f"several by `{LAUNCH}`, or unset WORLD_SIZE"
        )
    by_accelerate = any(name.startswith("ACCELERATE_") for name in os.environ)
    if wanted is None and by_accelerate and not count:
        raise SettingError(
            f"accelerate started a single process: start several by `{LAUNCH}`, or say by "
            "--processes 1 that one is meant"
        )
    if wanted is not None and wanted != max(count, 1):
        started = f"{count} processes" if count > 1 else "a single process"
        raise SettingError(
            f"--processes {wanted}, but this is {started}: start as many by `{LAUNCH}`"
        )


def _join():
    """Connect this process with the others, on the device that is its own."""
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        place = int(os.environ["LOCAL_RANK"])
        if place >= torch.cuda.device_count():
            raise StepError(
                f"this machine has fewer GPUs ({torch.cuda.device_count()}) than processes: start one "
                'for each, or set CUDA_VISIBLE_DEVICES="" to train on the CPU'
            )
        torch.cuda.set_device(place)
    else:
        default_device(use=False)  # gloo knows no GPUs of Apple
    distributed.init_process_group(backend, timeout=PATIENCE)


def _end(number, frame):
    raise StepError(ENDED)


@contextmanager
def _silent_unless_first() -> Iterator[None]:
    if is_first():
        yield
        return
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        yield


def are_several() -> bool:
    """Whether this process learns together with others, or was started to."""
    return distributed.is_available() and distributed.is_initialized()


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return not are_several() or distributed.get_rank() == 0


def of_first(value):
    """The `value` that the first process gives, which can be pickled."""
    if not are_several():
        return value
    values = [value]
    distributed.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


def check_same(what: str, value):
    """Wait for all processes; raise StepError where `value`, which is `what`, is not the same in
    all.
    """
    if not are_several():
        return
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    if any(other != values[0] for other in values):
        raise StepError(
            f"the processes of this training differ in {what}: start them with the same command, "
            "versions and data, and with EXPORT in a folder that all of them see"
        )


def wait_for_all():
    """Wait until all processes get here."""
    check_same("nothing", None)


def own_items(items: Sequence) -> Sequence:
    """The items that are left to this process, of those that all processes have in common."""
    if not are_several():
        return items
    return items[distributed.get_rank() :: distributed.get_world_size()]


def has_shares(model) -> bool:
    """Whether each process computes its share of the batches of a learner's `model`."""
    return isinstance(model, DistributedDataParallel)


def share_of(count: int) -> list[int]:
    """The places of this process's share in a batch of `count` items.

    All shares are equally large. Where `count` can't be divided so, the last ones start again with
    the first items.
    """
    processes = distributed.get_world_size()
    size = -(-count // processes)
    start = distributed.get_rank() * size
    return [place % count for place in range(start, start + size)]


class SharedBatches(Callback):
    """Lets each process compute its share of every batch of pictures, once the body is unfrozen.

    What the network answers for the shares is put together, so that every process has loss and
    metrics of whole batches. torch's DistributedDataParallel averages the gradients. fastai's
    `distrib_ctx` is not used: it forms other batches than a single process has.
    """

    order = 58  # after keep.Resume, which puts weights back: the first process's reach the others
    fit_depends_on_it = False

    def before_fit(self):
        if network.only_head_learns(self.opt):
            return
        device = self.dls.device
        self.learn.model = DistributedDataParallel(
            get_model(self.learn.model),
            device_ids=[device] if device.type == "cuda" else None,
        )

    def after_fit(self):
        self.learn.model = get_model(self.learn.model)

    def before_batch(self):
        if has_shares(self.learn.model):
            share = share_of(find_bs(self.yb))
            self.learn.xb = tuple(x[share] for x in self.xb)

    def after_pred(self):
        if not has_shares(self.learn.model):
            return
        processes = distributed.get_world_size()
        own = self.pred.as_subclass(torch.Tensor)
        parts = [torch.empty_like(own) for _ in range(processes)]
        distributed.all_gather(parts, own.detach().contiguous())
        if self.training:
            # a process has the gradient of its share alone, and their mean is to be their sum
            own.register_hook(lambda gradient: gradient * processes)
            parts[distributed.get_rank()] = own
        self.learn.pred = torch.cat(parts)[: find_bs(self.yb)]
