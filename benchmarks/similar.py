"""Whether what is most similar is by the same painter, by style, by content and mixtures; how fast
and how exact the search is among many pictures; which library answers it best.

    python benchmarks/similar.py EXPORT DATA
    python benchmarks/similar.py EXPORT --numbers 10000 1000000 [--index]
    python benchmarks/similar.py EXPORT --libraries 100000

EXPORT is an export folder, DATA its data set. Every picture whose painter has others in DATA is
asked for. Copies of it are never counted; `without series` leaves out pictures of the same painter
whose titles share half of their words, too; `own source` looks among pictures of its own source
alone; `same period` leaves out its painter. Chance is that of an order by lot. Intervals are 95%, by
bootstrap over painters.

With `--numbers`, so many descriptions are drawn from a mixture of 40 normal distributions that is
fitted to those of EXPORT, each number in a process of its own: the time of a search of the kind that
`artclf similar` does, and with `--index` what the index costs, and its recall at 10, the share of
the ten most similar that it finds. `--libraries` compares those of faiss, usearch and hnswlib that
are installed, on one thread, by descriptions of content.
"""

import argparse
import os
import re
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from artclf.data.groups import joined
from artclf.data.splits import usable
from artclf.results import embeddings, retrieval
from artclf.results.index import Index

SHARES = {"content": 0, "0.25": 0.25, "0.5": 0.5, "0.75": 0.75, "style": 1}
RANKS = (1, 5, 10)
COMPONENTS = 40
DRAWN_AT_ONCE = 50_000
QUERIES = 200
WORD = re.compile(r"[^\W\d_]{4,}")


# Whether the most similar are by the same painter


def relations(data, files) -> dict[str, np.ndarray]:
    """Which pairs of the pictures `files` of `data` belong together, and in which way: arrays of
    bools (pictures, pictures); and the painter of each.
    """
    rows = usable(data).set_index("file").loc[files]
    painters = rows.painter.to_numpy()
    copies = np.array(joined(rows.sha256, [rows.clean_sha256, rows.dup_group]))
    same_painter = (painters[:, None] == painters) & (painters != "")[:, None]
    words = [set(WORD.findall(title.casefold())) for title in rows.title.astype(object).fillna("")]
    series = np.zeros_like(same_painter)
    for one, other in np.argwhere(same_painter):
        shared = len(words[one] & words[other])
        series[one, other] = shared > 0 and 2 * shared >= len(words[one] | words[other])
    same = {name: rows[name].to_numpy() for name in ("period", "source")}
    return {
        "painter": same_painter,
        "copies": copies[:, None] == copies,
        "series": series,
        **{name: values[:, None] == values for name, values in same.items()},
        "of": painters,
    }


def questions(pairs: dict) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each table, the pairs that are looked for and those that are not looked among."""
    copies, series, painter = pairs["copies"], pairs["series"], pairs["painter"]
    return {
        "same painter": (painter, copies),
        "same painter without series": (painter, copies | series),
        "same painter, own source": (painter, copies | series | ~pairs["source"]),
        "same period": (pairs["period"], copies | painter),
    }


def judged(data, out) -> pd.DataFrame:
    """The share of pictures that have one that is looked for among the 1, 5 and 10 most similar."""
    known = embeddings.read_all(out)
    pairs = relations(data, known.files)
    described = retrieval.known_descriptions(known)
    cosines = {kind: vectors @ vectors.T for kind, vectors in described.items()}
    rows = []
    for question, (wanted, left_out) in questions(pairs).items():
        sought = wanted & ~left_out
        asked = np.flatnonzero(sought.any(axis=1))
        groups = pd.Series(pairs["of"]).where(pairs["of"] != "", pd.Series(known.files))[asked]
        rows.append({"question": question, "by": "chance", **chance(sought, left_out, asked)})
        for name, share in SHARES.items():
            similarities = share * cosines["style"] + (1 - share) * cosines["content"]
            similarities[left_out] = -np.inf
            hits = np.array(
                [sought[row, embeddings.best(similarities[row], max(RANKS))] for row in asked]
            )
            shares = {f"at {k}": hits[:, :k].any(axis=1) for k in RANKS}
            texts = {rank: with_interval(values, groups) for rank, values in shares.items()}
            rows.append({"question": question, "by": name, "pictures": len(asked), **texts})
    return pd.DataFrame(rows)


def chance(sought: np.ndarray, left_out: np.ndarray, asked: np.ndarray) -> dict[str, str]:
    """How often one that is looked for is among the first, in an order by lot."""
    wanted = sought[asked].sum(axis=1)
    others = (~left_out[asked]).sum(axis=1)
    missed = np.ones(len(asked))
    figures = {}
    for place in range(max(RANKS)):
        missed *= (others - wanted - place).clip(0) / (others - place).clip(1)
        if place + 1 in RANKS:
            figures[f"at {place + 1}"] = f"{1 - missed.mean():.3f}"
    return figures


def with_interval(values: np.ndarray, groups, resamples: int = 1000) -> str:
    """A mean with its 95% interval by bootstrap over `groups`."""
    sums = pd.Series(values.astype(float)).groupby(groups.to_numpy()).agg(["sum", "size"])
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), resamples)
    means = drawn @ sums["sum"].to_numpy() / (drawn @ sums["size"].to_numpy())
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


# Many pictures


def drawn(out, number: int, folder: Path) -> tuple[dict, dict]:
    """Descriptions of `number` pictures, in files in `folder`, and of `QUERIES` others."""
    from sklearn.mixture import GaussianMixture

    described = retrieval.known_descriptions(embeddings.read_all(out))
    sizes = {kind: vectors.shape[1] for kind, vectors in described.items()}
    mixture = GaussianMixture(
        COMPONENTS, covariance_type="tied", reg_covar=1e-6, random_state=0
    ).fit(np.concatenate(list(described.values()), axis=1))
    spread = np.linalg.cholesky(mixture.covariances_)
    rng = np.random.default_rng(0)

    def draw(count: int) -> dict[str, np.ndarray]:
        means = mixture.means_[rng.choice(COMPONENTS, count, p=mixture.weights_)]
        both = means + rng.standard_normal(means.shape) @ spread.T
        content, style = np.split(both, [sizes["content"]], axis=1)
        return {"content": embeddings.directions(content), "style": embeddings.directions(style)}

    files = {kind: folder / kind for kind in sizes}
    for start in range(0, number, DRAWN_AT_ONCE):
        for kind, vectors in draw(min(DRAWN_AT_ONCE, number - start)).items():
            with files[kind].open("ab") as stream:
                stream.write(vectors.tobytes())
    maps = {
        kind: np.memmap(files[kind], np.float32, "r", shape=(number, size))
        for kind, size in sizes.items()
    }
    return maps, draw(QUERIES)


def memory(name: str) -> int:
    """MB of this process: `RssAnon` is its own, `RssFile` that of files that are mapped."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(text.partition(f"{name}:")[2].split()[0]) // 1024


def searched(out, with_index: bool, number: int) -> list[dict]:
    """Time of a search among `number` pictures, and what an index costs and finds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vectors, queries = drawn(out, number, folder)
        indices = {}
        before = memory("RssAnon")
        if with_index:
            for kind in vectors:
                started = time.perf_counter()
                Index(folder, kind, vectors[kind], str)
                built = time.perf_counter() - started
                started = time.perf_counter()
                indices[kind] = Index(folder, kind, vectors[kind], str)
                loaded = time.perf_counter() - started
                megabytes = (folder / f"index-{kind}.faiss").stat().st_size / 1e6
                print(
                    f"index of {kind}: built in {built:.0f} s, loaded in {loaded:.2f} s, ", end=""
                )
                print(f"{megabytes:.0f} MB", flush=True)
        return [row_of(number, by, vectors, queries, indices, before) for by in SHARES]


def row_of(number: int, by: str, vectors, queries, indices, before: int) -> dict:
    share = SHARES[by]
    exact: list[float] = []
    approximate: list[float] = []
    recalls = []
    for place in range(QUERIES):
        query = {kind: rows[place] for kind, rows in queries.items()}
        started = time.perf_counter()
        rows, _ = retrieval.nearest(query, vectors, share, 10)
        exact.append(time.perf_counter() - started)
        if not indices:
            continue
        started = time.perf_counter()
        kinds = retrieval.weights(share)
        candidates = [indices[kind].candidates(query[kind], None, 10) for kind in kinds]
        among = np.unique(np.concatenate(candidates))
        found, _ = retrieval.nearest(query, vectors, share, 10, among)
        approximate.append(time.perf_counter() - started)
        recalls.append(len(set(rows) & set(found)) / len(rows))
    figures = {"pictures": number, "by": by, "all compared, ms": 1000 * median(exact)}
    if indices:
        figures |= {
            "index, ms": 1000 * median(approximate),
            "index, 99th percentile": 1000 * np.quantile(approximate, 0.99),
            "recall at 10": np.mean(recalls),
        }
    own = {"own MB": memory("RssAnon") - before, "mapped MB": memory("RssFile")}
    return figures | own


# Libraries


def of_faiss(vectors: np.ndarray, file: Path):
    """faiss' inverted file as `Index` builds it."""
    index = Index(file.parent, file.name, vectors, str)
    return lambda query, _: index.candidates(query, None, 10), index.file


def of_usearch(vectors: np.ndarray, file: Path):
    """usearch's graph with its own number of links, in float16."""
    from usearch.index import Index as Graph

    size = vectors.shape[1]
    index = Graph(ndim=size, metric="ip", dtype="f16", connectivity=16, expansion_add=128)
    index.add(np.arange(len(vectors)), vectors, threads=1)
    index.save(str(file))

    def search(query, effort):
        index.expansion_search = effort
        return index.search(query, 100, threads=1).keys.astype(int)

    return search, file


def of_hnswlib(vectors: np.ndarray, file: Path):
    """hnswlib's graph with its own number of links, in float32."""
    import hnswlib

    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), M=16, ef_construction=128, random_seed=0)
    index.add_items(vectors, np.arange(len(vectors)), num_threads=1)
    index.save_index(str(file))

    def search(query, effort):
        index.set_ef(effort)
        return index.knn_query(query, 100, num_threads=1)[0][0].astype(int)

    return search, file


LIBRARIES = {"faiss": of_faiss, "usearch": of_usearch, "hnswlib": of_hnswlib}
EFFORTS = {"faiss": [0], "usearch": [128, 512], "hnswlib": [128, 512]}


def of_library(out, number: int, name: str) -> list[dict]:
    """Seconds to build, MB on disk, milliseconds and recall at 10 of a library."""
    with tempfile.TemporaryDirectory() as folder:
        vectors, queries = drawn(out, number, Path(folder))
        started = time.perf_counter()
        search, file = LIBRARIES[name](np.asarray(vectors["content"]), Path(folder) / name)
        built = time.perf_counter() - started
        rows = []
        for effort in EFFORTS[name]:
            times, recalls = [], []
            for query in queries["content"]:
                both = {"content": query, "style": query[:0]}
                exact, _ = retrieval.nearest(both, vectors, 0, 10)
                started = time.perf_counter()
                candidates = np.sort(search(query, effort))
                found, _ = retrieval.nearest(both, vectors, 0, 10, candidates)
                times.append(time.perf_counter() - started)
                recalls.append(len(set(exact) & set(found)) / 10)
            row = {"library": name, "effort": effort, "built, s": built}
            row |= {"MB": file.stat().st_size / 1e6, "ms": 1000 * median(times)}
            rows.append(row | {"recall at 10": np.mean(recalls)})
        return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", type=Path)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--numbers", type=int, nargs="+", default=[])
    parser.add_argument("--index", action="store_true")
    parser.add_argument("--libraries", type=int)
    args = parser.parse_args()
    print(f"{os.environ.get('OMP_NUM_THREADS', 'all')} threads")
    jobs = [partial(searched, args.export, args.index, number) for number in args.numbers]
    if args.libraries:
        installed = [name for name in LIBRARIES if find_spec(name)]
        jobs += [partial(of_library, args.export, args.libraries, name) for name in installed]
    for job in jobs:
        with get_context("spawn").Pool(1) as pool:
            print(pd.DataFrame(pool.apply(job)).round(3).to_string(index=False), flush=True)
    if args.data:
        print(judged(args.data, args.export).to_string(index=False, na_rep=""))


if __name__ == "__main__":
    main()
