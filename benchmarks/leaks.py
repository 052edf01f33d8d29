"""How much copies, painters on both sides and the size of files add to a score, on your data set.

    python benchmarks/leaks.py FOLDER [--data DATA] [--levelled LEVELLED] [--with-duplicates]

FOLDER is a data folder, or a gallery `FOLDER/<class>/*.jpg` with a manifest if there is one; a
gallery is imported into DATA (data/<its name>) and cleaned first. Prints the table of the three
splits; the table of the shortcuts, also for LEVELLED (DATA-levelled), where every picture is a JPEG
of 224 x 224 px; and a warning where size alone predicts much. Brackets are 95%
intervals; 5 folds x 3 seeds. The plots are in notebooks/experiments/17_leaks.ipynb.
"""

import argparse
from pathlib import Path

import pandas as pd

from artclf import download
from artclf.data import cleaning, duplicates, levels
from artclf.lab import leaks


def data_of(folder: Path, data: Path | None) -> Path:
    """The data folder: `folder` itself, or the one that its pictures were imported into."""
    if (folder / "catalogue.db").exists():
        return folder
    data = data or Path("data") / folder.resolve().name
    download.import_folder(folder, data)
    cleaning.normalise(data)
    duplicates.mark(data)
    return data


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--levelled", type=Path)
    parser.add_argument("--with-duplicates", action="store_true")
    args = parser.parse_args()
    pd.set_option("display.width", 200, "display.max_columns", None, "display.max_colwidth", None)
    try:
        data = data_of(args.folder, args.data)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(leaks.readable(leaks.compare(data, with_duplicates=args.with_duplicates)), end="\n\n")
    levelled = levels.level_sources(
        data, args.levelled or data.with_name(f"{data.resolve().name}-levelled")
    )
    table = leaks.shortcuts(data, levelled)
    print(leaks.readable(table).set_index(["pictures", "sees"]), end="\n\n")
    print(
        leaks.warning(table)
        or "Width, height and file size explain little of what the pictures gain."
    )


if __name__ == "__main__":
    main()
