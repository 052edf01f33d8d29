"""The model card of an export, `EXPORT/README.md`: what the network learned from, how good it is,
what it is for and what not.

Reads `config.json`, `metrics.json` and `predictions.csv` of the export and the catalogue of `DATA`.
`predict.export` writes it. Its head is YAML as model hubs read it. It names no path of this machine,
and the same export and catalogue give the same text.
"""

import re
from pathlib import Path
from typing import Any

from artclf.base import figures
from artclf.base.errors import InputError
from artclf.base.files import read_json
from artclf.data.splits import PARTS
from artclf.model import backbones
from artclf.results import calibration, evaluation
from artclf.results.pages import TEMPLATES
from artclf.results.report import HOW_SPLIT, intervals

NAME = "README.md"
HOME = "https://github.com/artclf/artclf"
FEW = 50  # pictures that a period learned from
FEW_TESTED = 10  # pictures that a period's figures rest on
MOST_ROWS = 20  # sources and licences that are named
PAIRS = 5  # most confused ones that are named
METRICS = {  # of evaluation.metrics: the hub's metric, its name, its arguments
    "accuracy": ("accuracy", "accuracy", None),
    "macro_f1": ("f1", "macro F1", {"average": "macro"}),
    "top3_accuracy": ("accuracy", "top-3 accuracy", {"k": 3}),
}
# what a card tells of `config.json`; experiments that write no export of ours lack some of it
NEEDED = {"name", "library", "weights", "mean", "std", "vocab", "size", "resize"}
NEEDED |= {"data_hash", "seed", "versions", "temperature"}
# licences that the hub knows by these names
HUB_LICENCES = (
    *backbones.FREE_LICENCES,
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-sa-4.0",
    "apple-amlr",
)


def text(out, data) -> str:
    """The model card of the export `out`, which learned from the pictures in `data`, as Markdown.

    The figures are those of part test, or of valid where there is no test. Raises FileNotFoundError
    and InputError as `evaluation.read` does, and InputError where `is_possible` says no.
    """
    out = Path(out)
    if not is_possible(out):
        raise InputError(f"{out} lacks settings or figures of `artclf train`: train again")
    config = read_json(out / "config.json")
    metrics = read_json(out / "metrics.json")
    predictions = evaluation.read(out, data)
    part = "test" if "test" in metrics["metrics"] else "valid"
    bodies = _bodies(config)
    head = _head(config, metrics, part, bodies)
    return f"---\n{head}\n---\n\n{_body(predictions, config, metrics, part, bodies)}"


def is_possible(out) -> bool:
    """Whether the folder `out` holds the settings and figures that a card tells."""
    config = read_json(Path(out) / "config.json")
    metrics = read_json(Path(out) / "metrics.json")
    return set(config) >= NEEDED and "valid" in metrics.get("metrics", ())


def escaped(value) -> str:
    """A text of a user's as it stands in Markdown, where it is nothing but text; one line."""
    one_line = " ".join(str(value).split())
    printable = "".join(sign for sign in one_line if sign.isprintable())
    marked = re.sub(r"([\\`*_{}\[\]|~#$!])", r"\\\1", printable)
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _bodies(config: dict) -> list[dict]:
    """The networks that the classifier began with: `name`, `weights` in words, and their `licence`,
    '' where there are no pretrained weights.
    """
    bodies = []
    for body in backbones.each(backbones.of_config(config)):
        licence = backbones.licence_of(body.name)
        if body.weights.startswith(backbones.FROM_FILE):
            licence = backbones.UNKNOWN
        if body.weights == "random":
            licence = ""
        bodies.append({"name": body.name, "weights": body.weights, "licence": licence})
    return bodies


def _head(config: dict, metrics: dict, part: str, bodies: list[dict]) -> str:
    """The YAML at the top, without its lines of dashes."""
    from huggingface_hub import EvalResult, ModelCardData

    of_part = metrics["metrics"][part]
    results = []
    for name, (kind, shown, arguments) in METRICS.items():
        result = EvalResult(
            task_type="image-classification",
            task_name="periods of paintings",
            dataset_type="imagefolder",
            dataset_name=f"{of_part['images']} pictures of {len(config['vocab'])} periods",
            dataset_split="validation" if part == "valid" else part,
            dataset_revision=config["data_hash"],
            metric_type=kind,
            metric_name=shown,
            metric_value=round(of_part[name], 4),
            metric_args=arguments,
        )
        results.append(result)
    hub_ids = [body["weights"].removeprefix("timm ") for body in bodies]
    base_models = [
        hub_id
        for hub_id, body in zip(hub_ids, bodies, strict=True)
        if body["weights"] == f"timm {hub_id}" and hub_id.count("/") == 1
    ]
    data = ModelCardData(
        **_licence({body["licence"] for body in bodies}),
        library_name="artclf",
        pipeline_tag="image-classification",
        tags=["art", "paintings", "art-history", "fastai"],
        base_model=base_models or None,
        model_name=f"artclf {config['name']}",
        eval_results=results,
    )
    return data.to_yaml()


def _licence(licences: set[str]) -> dict[str, Any]:
    """What the head says of the licence, given those of the weights that the network began with."""
    if not licences - {"", backbones.UNKNOWN}:
        return {"license": "unknown"}
    if licences <= set(HUB_LICENCES) and len(licences) == 1:
        return {"license": licences.pop()}
    return {"license": "other", "license_name": "see-readme", "license_link": NAME}


def _body(predictions, config: dict, metrics: dict, part: str, bodies: list[dict]) -> str:
    """The card below its head."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(  # noqa: S701 (it is no HTML: `finalize` escapes what is filled in)
        loader=FileSystemLoader(TEMPLATES),
        finalize=escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(percent=figures.percent, figure=figures.figure)
    rows = evaluation.of_part(predictions, part)
    low_high, units = intervals(predictions, part)
    counts = _counts(predictions)
    table = _figures_by_period(rows, list(counts))
    return environment.get_template("card.md").render(
        home=HOME,
        config=config,
        kept=metrics,
        part=part,
        parts=[name for name in PARTS if (predictions.part == name).any()],
        own=metrics["metrics"][part],
        intervals=low_high,
        units=units,
        counts=counts,
        table=table,
        learned_from_all=len(config.get("learned_from", ())) > 1,
        few=[name for name, of_parts in counts.items() if of_parts["train"] < FEW],
        few_limit=FEW,
        untested=[name for name, row in table.items() if not row["support"]],
        hardly_tested=[name for name, row in table.items() if 0 < row["support"] < FEW_TESTED],
        tested_limit=FEW_TESTED,
        pairs=evaluation.most_confused(predictions, PAIRS, part).to_dict("records"),
        sources=_frequent(predictions.source),
        licences=_frequent(predictions.licence),
        error=calibration.error(rows),
        answerable=calibration.answerable(predictions, part).dropna().to_dict("records"),
        how_split=HOW_SPLIT.get(config.get("split", ""), "as a table of its own says"),
        bodies=bodies,
    )


def _counts(predictions) -> dict[str, dict[str, int]]:
    """The pictures of each period in each part."""
    counts = {}
    for name in evaluation.classes(predictions):
        of_period = predictions.part[predictions.period == name].value_counts()
        counts[name] = {part: int(of_period.get(part, 0)) for part in PARTS}
    return counts


def _figures_by_period(rows, names: list[str]) -> dict[str, dict]:
    """`precision`, `recall`, `f1` and the number of images, `support`, of each period in `rows`."""
    table = evaluation.per_class(rows.assign(part="test")).reindex(names)
    table = table.filter(regex="_test$").rename(columns=lambda name: name.removesuffix("_test"))
    return table.fillna({"support": 0}).to_dict("index")


def _frequent(facts) -> dict:
    """Which values of a fact are the most frequent: `named` are pairs of one and its number of
    pictures, `others` the numbers of values and pictures beside them, `unknown` that of pictures
    without the fact.
    """
    counts = facts[facts != ""].value_counts()
    by_number = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = [number for _, number in by_number[MOST_ROWS:]]
    return {
        "named": by_number[:MOST_ROWS],
        "others": (len(rest), sum(rest)),
        "unknown": int((facts == "").sum()),
    }
