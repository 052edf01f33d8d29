"""How many pictures of each folder the server calls unlike all that the classifier learned from.

    python benchmarks/far.py EXPORT FOLDER... [--most 100]

Of paintings that aren't in the training data it should be few, of photographs, screenshots and
plots many.
"""

import argparse
from pathlib import Path

import numpy as np

import artclf
from artclf.data.formats import IMAGE_SUFFIXES
from artclf.results.neighbours import Neighbours


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument(
        "--most", type=int, default=100, help="pictures of a folder, spread over it"
    )
    parser.add_argument("--backend", default="torch", choices=list(artclf.BACKENDS))
    options = parser.parse_args()
    classifier = artclf.load(options.export, backend=options.backend)
    neighbours = Neighbours(options.export)
    for folder in options.folders:
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        files = files[:: max(1, len(files) // options.most)][: options.most]
        _, features, errors = classifier.probabilities_and_features(files)
        readable = features[[not error for error in errors]]
        distances = np.array([neighbours.distance(row) for row in readable])
        far = int((distances > 1).sum())
        median = np.median(distances)
        print(f"{folder}: {far} of {len(distances)} far, median distance {median:.2f}")


if __name__ == "__main__":
    main()
