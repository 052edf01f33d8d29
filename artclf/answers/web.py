"""A page that answers in the browser: a folder for any static host, without a server of ours.

Reads `config.json`, `model.onnx` and `model-int8.onnx` of an export, and the page in `page/`; writes
a folder. The pictures never leave the browser. Needs the extra `onnx`.
"""

import json
from pathlib import Path

from artclf.answers import onnx, runtime
from artclf.base.files import replace_together
from artclf.data.pictures import MAX_SIZE

PAGE = Path(__file__).parent / "page"
MODEL = "model.onnx"  # its name in the folder, whichever it is
MAX_LOSS = 0.005  # of accuracy, below which weights in int8 are taken


def write(out, folder, archive: Path | None = None) -> dict:
    """Write the page with the network of the export folder `out` to `folder`; return which `model`
    it holds, and the `MB` of it and of the whole page.

    Weights in int8 are taken where they cost less than half a point of accuracy, as `artclf export
    --int8` has measured it. Files of the same names are replaced, all or none; others stay.
    `archive` is what `runtime.files` takes. Raises what that and `onnx.load` raise.
    """
    out = Path(out)
    folder = Path(folder)
    classifier = onnx.load(out)
    config = classifier.config
    file = onnx.FLOAT
    measured = config.get("int8")
    if measured and measured["accuracy"] - measured["accuracy_int8"] < MAX_LOSS:
        file = onnx.INT8
        onnx.load(out, file=file)  # which checks it
    settings = {
        "file": MODEL,
        "vocab": config["vocab"],
        "artists": classifier.artists,
        "size": config["size"],
        "resize": config["resize"],
        "max_size": config.get("max_size", MAX_SIZE),
        "temperature": config["temperature"],
    }
    contents = runtime.files(archive)
    contents |= {each.name: each.read_bytes() for each in PAGE.iterdir() if each.is_file()}
    contents["model.json"] = json.dumps(settings, indent=1).encode()
    contents[MODEL] = (out / file).read_bytes()
    with replace_together(folder) as new:
        for name, content in contents.items():
            (new / name).write_bytes(content)
    return {
        "model": file,
        "model_MB": round(len(contents[MODEL]) / 1e6, 2),
        "MB": round(sum(map(len, contents.values())) / 1e6, 2),
    }
