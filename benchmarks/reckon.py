"""How long a list of URLs takes on a cluster, what bounds it, and what it costs: a table, reckoned from
measured figures.

    python benchmarks/reckon.py [FIGURES.json] [--urls 1e6 1e8 4e8] [--cores 8 64 512] ...

The figures are those of `cluster.py --save FIGURES.json` and `faults.py --rates 3 --save FIGURES.json`.

Hours of a step are the largest of three:

* cores: pictures / (cores x pictures a second and core)
* hosts (download): URLs of the largest host x seconds a request / requests to it at a time
* driver: pictures / pictures a second that the one process of the command can hand out and record

The options say what was not measured: how servers answer, how the list is shared among hosts, and
prices. Their defaults are assumptions.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

FIGURES = Path(__file__).with_name("cluster.json")
STEPS = ("download", "clean", "duplicates", "features")
HOUR = 3600
TERABYTE = 1e12
CORES_A_NODE = 8


@dataclass
class Assumptions:
    """What a list and the world are like; see the options of the script."""

    seconds: float
    per_host: int
    largest: float
    alive: float
    core_hour: float
    terabyte_month: float


def bounds(
    step: str, urls: float, cores: int, figures: dict, world: Assumptions
) -> dict[str, float]:
    """The hours that each bound asks for."""
    pictures = urls if step == "download" else urls * world.alive
    hours = {
        "cores": pictures / (cores * figures[step]["a_core"]) / HOUR,
        "driver": pictures / figures[step]["driver"] / HOUR,
    }
    if step == "download":
        hours["hosts"] = urls * world.largest * world.seconds / world.per_host / HOUR
    return hours


def reckon(urls: float, cores: int, figures: dict, world: Assumptions) -> dict:
    """A row of the table."""
    row = {"URLs": f"{urls / 1e6:,.0f} million", "cores": cores, "nodes": -(-cores // CORES_A_NODE)}
    total = 0.0
    for step in STEPS:
        hours = bounds(step, urls, cores, figures, world)
        bound = max(hours, key=lambda name: hours[name])
        row[f"{step}, hours"] = f"{shown(hours[bound])} ({bound})"
        total += hours[bound]
    kept = urls * world.alive * (figures["raw_bytes"] + figures["clean_bytes"]) / TERABYTE
    traffic = urls * world.alive * figures["raw_bytes"] / TERABYTE
    cost = total * cores * world.core_hour + kept * world.terabyte_month
    return {
        **row,
        "days": shown(total / 24),
        "TB kept": shown(kept),
        "TB fetched": shown(traffic),
        "cost, $": f"{cost:,.0f}",
    }


def save(file: Path, figures: dict):
    """Add figures to those in `file`."""
    known = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps(known | figures, indent=1) + "\n", "utf-8")


def shown(number: float) -> str:
    """A number with two digits that count, or whole."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def table(rows: list[dict]) -> str:
    """A table in Markdown."""
    lines = [
        list(rows[0]),
        ["---"] * len(rows[0]),
        *([str(cell) for cell in row.values()] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", type=Path, nargs="?", default=FIGURES)
    parser.add_argument("--urls", type=float, nargs="+", default=[1e6, 1e8, 4e8])
    parser.add_argument("--cores", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--seconds", type=float, default=0.5, help="a request takes")
    parser.add_argument("--per-host", type=int, default=2, help="requests to a host at a time")
    parser.add_argument("--largest", type=float, default=0.02, help="share of the largest host")
    parser.add_argument("--alive", type=float, default=0.8, help="share of URLs with a picture")
    parser.add_argument("--core-hour", type=float, default=0.05, help="price of a core, $")
    parser.add_argument("--terabyte-month", type=float, default=25, help="price of a month, $")
    arguments = vars(parser.parse_args())
    figures = json.loads(arguments.pop("figures").read_text("utf-8"))
    sizes = [(urls, cores) for urls in arguments.pop("urls") for cores in arguments["cores"]]
    del arguments["cores"]
    world = Assumptions(**arguments)
    print(table([reckon(urls, cores, figures, world) for urls, cores in sizes]))


if __name__ == "__main__":
    main()
