"""Hubs: whether weights of torchvision and timm are in a cache, and whether their hub answers."""

import queue
import threading
import urllib.error
import urllib.request
from pathlib import Path

from artclf.base.machine import is_offline

HUBS = {"torchvision": "https://download.pytorch.org", "timm": "https://huggingface.co"}
SECONDS_TO_ANSWER = 4.0
# of the Hugging Face hub, those of CLIP's image towers with its text towers, too
WEIGHT_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)


def is_cached(name: str, library: str) -> bool:
    """Whether the weights of a network of timm or torchvision are in a cache of theirs."""
    import torch
    import torchvision

    if library == "timm":
        return timm_file(name) is not None
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    file_name = url.rsplit("/", 1)[-1]
    return (Path(torch.hub.get_dir()) / "checkpoints" / file_name).exists()


def timm_file(name: str) -> str | None:
    """The weights of a timm model in the cache of the Hugging Face hub."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if not config.hf_hub_id:
        return None
    own_file = (config.hf_hub_filename,) if config.hf_hub_filename else ()
    for file_name in (*WEIGHT_FILES, *own_file):
        file = try_to_load_from_cache(config.hf_hub_id, file_name)
        if isinstance(file, str):
            return file
    return None


def answers(hub: str, seconds: float = SECONDS_TO_ANSWER) -> bool:
    """Whether `hub` answers at all within so many `seconds`.

    It is asked in a thread, because looking up its name may hang beyond any time-out.
    """
    if is_offline():
        return False
    outcome: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def ask():
        request = urllib.request.Request(hub, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
        except urllib.error.HTTPError:  # an answer, too
            outcome.put(True)
        except OSError:
            outcome.put(False)
        else:
            outcome.put(True)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return outcome.get(timeout=seconds)
    except queue.Empty:
        return False
