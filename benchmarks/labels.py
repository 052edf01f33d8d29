"""How many wrong labels, and pictures that aren't paintings, `artclf.model.doubts` puts at the top
of its lists.

    python benchmarks/labels.py FOLDER [--flip 0.1] [--strangers 0.03] [--seeds 3] [--out FOLDER]

The pictures in `FOLDER/<class>/` are imported into a temporary data folder, and with them drawn
pages of text, book covers, maps, empty frames and rooms. For each seed, another tenth of the
paintings get one of the other labels, at random, and `doubts.mark` runs. Printed is the share of
the wrong labels in the first 10% of the list (mean, and standard deviation over the seeds), beside
other rankings: by the probability of the given label from a head that learned from all labels
alike, out of fold or in sample; and, where cleanlab is installed (`pip install cleanlab`), by its
other scores of the same probabilities. `wrong.png` in the folder `--out` shows the precision by
rank. Then, with the right labels again, another sample of the drawn strangers is put among the
paintings for each seed; printed is the share of them in the first 5% by `outlier`.
"""

import argparse
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.base import clone

from artclf import download
from artclf.data import cleaning, splits
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.model import doubts, features
from artclf.model.folds import out_of_fold

TEXT = (
    "the picture of a painter in his time and what became of it later when nobody looked at walls"
)


def text(rng, draw, box, size: int, ink):
    """Lines of words that fill `box`."""
    left, top, right, bottom = box
    font = ImageFont.load_default(size)
    for y in np.arange(top, bottom - size, 1.4 * size):
        line = " ".join(rng.choice(TEXT.split(), 40))
        while draw.textlength(line, font) > right - left:
            line = line.rpartition(" ")[0]
        draw.text((left, y), line, ink, font)


def tint(rng, low: int, high: int):
    return tuple((rng.integers(low, high) + rng.integers(-12, 12, 3)).clip(0, 255))


def page(rng, im, draw, w, h):
    """One or two columns of text under a headline."""
    columns = rng.integers(1, 3)
    size = int(rng.integers(9, 16))
    draw.rectangle((0, 0, w, h), tint(rng, 225, 255))
    text(rng, draw, (w * 0.1, h * 0.05, w * 0.7, h * 0.05 + 2.5 * size), 2 * size, (20, 20, 20))
    for left in np.linspace(0.08, 0.92, columns + 1)[:-1]:
        text(
            rng,
            draw,
            (w * left, h * 0.16, w * (left + 0.8 / columns), h * 0.94),
            size,
            (30, 30, 30),
        )


def cover(rng, im, draw, w, h):
    """A book's cover: a ground, a panel, a title in large letters, an author."""
    ground = tint(rng, 20, 200)
    ink = tint(rng, 220, 255)
    draw.rectangle((0, 0, w, h), ground)
    draw.rectangle(
        (w * 0.1, h * rng.uniform(0.4, 0.5), w * 0.9, h * 0.85), tint(rng, 30, 230), ink, 3
    )
    text(rng, draw, (w * 0.1, h * 0.1, w * 0.9, h * 0.38), int(w / rng.uniform(7, 10)), ink)
    text(rng, draw, (w * 0.3, h * 0.9, w * 0.7, h * 0.97), w // 20, ink)


def chart(rng, im, draw, w, h):
    """A map: land in the sea, borders, roads, names, a grid."""
    draw.rectangle((0, 0, w, h), (170 + rng.integers(40), 205, 230))
    angle = np.linspace(0, 2 * np.pi, 90)
    for _ in range(rng.integers(2, 5)):
        radius = rng.uniform(0.15, 0.45) * w * (1 + 0.25 * np.cumsum(rng.normal(0, 0.12, 90)))
        x = rng.uniform(0.2, 0.8) * w + radius * np.cos(angle)
        y = rng.uniform(0.2, 0.8) * h + radius * np.sin(angle)
        draw.polygon(np.stack([x, y], 1).ravel().tolist(), tint(rng, 200, 240), (90, 80, 70))
    for _ in range(12):
        road = np.cumsum(rng.normal(0, w / 25, (15, 2)), 0) + rng.random(2) * (w, h)
        draw.line(road.ravel().tolist(), tint(rng, 80, 220), int(rng.integers(1, 4)))
    font = ImageFont.load_default(11)
    for xy in rng.random((25, 2)) * (w, h):
        draw.text(tuple(xy), rng.choice(TEXT.split()), (30, 30, 30), font)
    for x in range(0, w, w // 6):
        draw.line((x, 0, x, h), (120, 140, 160))
    for y in range(0, h, w // 6):
        draw.line((0, y, w, y), (120, 140, 160))


def frame(rng, im, draw, w, h):
    """A frame with nothing in it, on a wall."""
    wall = tint(rng, 150, 245)
    draw.rectangle((0, 0, w, h), wall)
    gold = np.array((150, 110, 50)) + rng.integers(-40, 50)
    edge = w * rng.uniform(0.08, 0.2)
    for i in np.linspace(0, 1, 30):
        shade = tuple((gold * (0.6 + 0.5 * abs(np.sin(5 * i)))).astype(int))
        inset = edge * (0.3 + 0.7 * i)
        draw.rectangle((inset, inset, w - inset, h - inset), shade)
    draw.rectangle(
        (edge, edge, w - edge, h - edge), tint(rng, 225, 250) if rng.random() < 0.5 else wall
    )


def room(rng, im, draw, w, h):
    """A room: a wall lit from one side, a floor in perspective, a door or a bench, frames far away,
    a little noise.
    """
    x, y = np.meshgrid(np.linspace(-1, 1, w), np.linspace(0, 1, h))
    edge = rng.uniform(0.6, 0.75)
    brightness = rng.uniform(-0.3, 0.3)
    wall = np.array(tint(rng, 150, 240)) * (1 + brightness * x[..., None])
    floor = np.array(tint(rng, 70, 170)) * (0.6 + 0.6 * y[..., None])
    boards = np.sin(14 * x / (y - edge + 0.3) * rng.uniform(0.5, 1))[..., None] > 0.96
    both = np.where(y[..., None] > edge, floor * (1 - 0.3 * boards), wall)
    im.paste(Image.fromarray(both.clip(0, 255).astype("uint8")))
    for left in (0.15, 0.6)[: rng.integers(1, 3)]:
        draw.rectangle(
            (w * left, h * 0.3, w * (left + 0.12), h * 0.45), tint(rng, 40, 140), (90, 70, 40), 4
        )
    draw.rectangle((w * 0.42, h * edge * 0.55, w * 0.56, h * edge), tint(rng, 30, 120))
    draw.rectangle((w * 0.1, h * (edge + 0.1), w * 0.5, h * (edge + 0.14)), tint(rng, 30, 90))
    im.paste(im.filter(ImageFilter.GaussianBlur(1)))
    im.paste(
        Image.fromarray((np.asarray(im) + rng.normal(0, 4, (h, w, 3))).clip(0, 255).astype("uint8"))
    )


KINDS = {"page": page, "cover": cover, "map": chart, "frame": frame, "room": room}


def stranger(kind: str, number: int) -> Image.Image:
    """A picture that isn't a painting, one of `KINDS`; its longer side is 400 px."""
    rng = np.random.default_rng([number, *kind.encode()])
    w, h = 400, int(rng.integers(270, 400))
    landscape = kind in ("room", "map") or rng.random() < 0.3
    if not landscape:
        w, h = h, w
    im = Image.new("RGB", (w, h))
    KINDS[kind](rng, im, ImageDraw.Draw(im), w, h)
    return im


def take_in(folder, data: Path, share: float) -> set[str]:
    """Import the paintings, and twice as many strangers as are shown at once; the URLs of the
    strangers.
    """
    download.import_folder(folder, data)
    table = read_catalogue(data)
    periods = sorted(set(table.period))
    gallery = data / "strangers"
    for number in range(2 * round(share * len(table))):
        file = gallery / periods[number % len(periods)] / f"{number:05}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        stranger(list(KINDS)[number % len(KINDS)], number).save(file, quality=80 + number % 15)
    if gallery.exists():
        download.import_folder(gallery, data)
    cleaning.normalise(data)
    rows = splits.usable(data)
    for mirror in (False, True):
        features.extract(data, rows, mirror=mirror)
    return set(read_catalogue(data).url) - set(table.url)


def set_labels(data, reviews: dict, periods: dict):
    """Set `review` and `period` of the pictures with these URLs. Their features stay valid: they
    are stored by the picture's bytes.
    """
    with Catalogue(data) as cat, cat.transaction() as db:
        db.executemany(
            "UPDATE images SET review = ? WHERE url = ?", ((v, k) for k, v in reviews.items())
        )
        db.executemany(
            "UPDATE images SET period = ? WHERE url = ?", ((v, k) for k, v in periods.items())
        )


def flip(truth: dict, share: float, seed: int) -> dict:
    """Wrong periods, each equally likely, for a share of the URLs."""
    rng = np.random.default_rng(seed)
    periods = sorted(set(truth.values()))
    urls = rng.choice(sorted(truth), round(share * len(truth)), replace=False)
    return {url: rng.choice([period for period in periods if period != truth[url]]) for url in urls}


class Rankings(NamedTuple):
    """The results of one seed.

    `wrong_by_rank`: for each ranking, whether each label is wrong, the most doubtful label first.
    `picked`: for each selection, its share of the pictures, its precision and its recall.
    """

    wrong_by_rank: dict[str, np.ndarray]
    picked: dict[str, tuple[float, float, float]]


def rank(data, seed: int, wrong: dict) -> Rankings:
    """Rank and select the labels of `data`, of which those of the URLs `wrong` are wrong."""
    doubts.mark(data, seed)
    rows = splits.usable(data)
    x = (features.extract(data, rows) + features.extract(data, rows, mirror=True)) / 2
    y = np.unique(rows.period, return_inverse=True)[1]
    is_wrong = rows.url.isin(wrong.keys()).to_numpy()
    groups = rows.clean_sha256.to_numpy()
    one_pass = out_of_fold(doubts.HEAD, x, y, groups, doubts.FOLDS, seed)
    in_sample = clone(doubts.HEAD).fit(x, y).predict_proba(x)
    two_passes = doubts.probabilities(x, y, groups, seed)
    doubtful = doubts.flagged(data).query("reasons.str.contains('doubtful')")
    scores = {
        "doubts.mark": 1 - rows.doubt.to_numpy(float),
        "probability, one pass": one_pass.of_class(y),
        "probability, in sample": in_sample[np.arange(len(y)), y],
        **cleanlab_scores(y, two_passes),
    }
    selections = {
        "doubts.flagged": rows.url.isin(doubtful.url).to_numpy(),
        **cleanlab_selections(y, two_passes),
    }
    return Rankings(
        {name: is_wrong[np.argsort(score, kind="stable")] for name, score in scores.items()},
        {
            name: (chosen.mean(), is_wrong[chosen].mean(), chosen[is_wrong].mean())
            for name, chosen in selections.items()
        },
    )


def cleanlab_scores(y, probabilities) -> dict[str, np.ndarray]:
    """cleanlab's other scores, low for doubtful labels; none where it isn't installed."""
    if not find_spec("cleanlab"):
        return {}
    from cleanlab.rank import get_label_quality_scores

    return {
        "self-confidence, adjusted": get_label_quality_scores(
            y, probabilities, adjust_pred_probs=True
        ),
        "normalized margin": get_label_quality_scores(y, probabilities, method="normalized_margin"),
        "entropy": get_label_quality_scores(y, probabilities, method="confidence_weighted_entropy"),
    }


def cleanlab_selections(y, probabilities) -> dict[str, np.ndarray]:
    """The labels that cleanlab calls wrong by each of its filters; none where it isn't
    installed.
    """
    if not find_spec("cleanlab"):
        return {}
    from cleanlab.filter import find_label_issues

    return {
        f"cleanlab, {name}": find_label_issues(y, probabilities, filter_by=name, n_jobs=1)
        for name in ("prune_by_noise_rate", "both", "confident_learning")
    }


def check_labels(data, strangers: set, truth: dict, share: float, seeds: int, out: Path):
    """Print and plot how well wrong labels are found, without strangers among the paintings."""
    results = []
    for seed in range(seeds):
        wrong = flip(truth, share, seed)
        set_labels(data, dict.fromkeys(strangers, "drop"), truth | wrong)
        results.append(rank(data, seed, wrong))
    set_labels(data, {}, truth)
    number = len(truth)
    print(
        f"{number} paintings, {round(share * number)} wrong labels, {seeds} seeds: the share of "
        "them in the first 10%"
    )
    print(f"  {'by chance':34} {0.1:6.1%}")
    wrong_by_rank = {
        name: np.array([result.wrong_by_rank[name] for result in results])
        for name in results[0].wrong_by_rank
    }
    for name, is_wrong in wrong_by_rank.items():
        hits = is_wrong[:, : round(0.1 * number)].sum(1) / is_wrong.sum(1)
        print(f"  {name:34} {hits.mean():6.1%} ± {hits.std():.1%}")
    print(
        "  picked: share of the pictures, of the picked that are wrong, of the wrong that are "
        "picked"
    )
    for name in results[0].picked:
        means = np.mean([result.picked[name] for result in results], axis=0)
        print(f"  {name:34} " + " ".join(f"{mean:6.1%}" for mean in means))
    plot(wrong_by_rank, share, number, out / "wrong.png")


def plot(wrong_by_rank: dict, share: float, number: int, file: Path):
    """Precision by rank: how many of the first labels of a list are wrong."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    ax = figure.subplots()
    ranks = np.arange(1, number + 1)
    for name in ("doubts.mark", "probability, one pass", "probability, in sample"):
        precision = np.cumsum(wrong_by_rank[name], axis=1) / ranks
        mean, spread = precision.mean(0), precision.std(0)
        [line] = ax.plot(ranks / number, mean, label=name)
        ax.fill_between(
            ranks / number,
            mean - spread,
            mean + spread,
            color=line.get_color(),
            alpha=0.2,
            lw=0,
        )
    best = np.minimum(1, share * number / ranks)
    ax.axhline(share, color="black", ls=":", label="chance")
    ax.axvline(0.1, color="grey", lw=0.8)
    ax.plot(ranks / number, best, color="black", lw=0.8, label="the best possible")
    ax.set(
        xlim=(0.005, 0.4),
        ylim=(0, 1.02),
        xlabel="first part of the list",
        ylabel="of these, wrong labels",
        title=f"{number} paintings, {share:.0%} of the labels wrong: precision by rank",
    )
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.legend()
    figure.savefig(file, dpi=120)
    print(f"  {file}")


def check_outliers(data, strangers: set, seeds: int):
    """Print how well strangers are found: for each seed another half of them among the paintings,
    with the right labels.
    """
    urls = sorted(strangers)
    results = []
    for seed in range(seeds):
        shown = set(np.random.default_rng(seed).choice(urls, len(urls) // 2, replace=False))
        set_labels(data, {url: None if url in shown else "drop" for url in urls}, {})
        ranked = doubts.mark(data, seed).merge(splits.usable(data)[["file", "url"]], on="file")
        ranked = ranked.sort_values("outlier", ascending=False)
        is_stranger = ranked.url.isin(shown).to_numpy()
        is_flagged = ranked.reason.str.contains("outlier").to_numpy()
        first = is_stranger[: round(0.05 * len(ranked))]
        results.append(
            [
                first.sum() / is_stranger.sum(),
                is_flagged.mean(),
                is_stranger[is_flagged].mean(),
                is_flagged[is_stranger].mean(),
            ]
        )
    set_labels(data, dict.fromkeys(urls, "drop"), {})
    in_first, flagged, precision, recall = np.mean(results, axis=0)
    spread = np.std(results, axis=0)[0]
    number = is_stranger.sum()
    print(f"{len(ranked) - number} paintings, {number} strangers, {seeds} seeds")
    print(f"  in the first 5% by outlier score   {in_first:6.1%} ± {spread:.1%} (by chance 5.0%)")
    print(
        f"  flagged as outliers {flagged:.1%} of the pictures; of the flagged {precision:.1%} are "
        f"strangers, of the strangers {recall:.1%} are flagged"
    )
    without = doubts.mark(data).reason.str.contains("outlier")
    print(f"  without strangers {without.mean():.1%} of the paintings are flagged as outliers")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--flip", type=float, default=0.1, help="share of the labels that are made wrong"
    )
    parser.add_argument(
        "--strangers", type=float, default=0.03, help="pictures that aren't paintings, as a share"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for the plot")
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp(prefix="labels-"))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        strangers = take_in(args.folder, Path(data), args.strangers)
        rows = splits.usable(data)
        truth = {row.url: row.period for row in rows[~rows.url.isin(strangers)].itertuples()}
        check_labels(data, strangers, truth, args.flip, args.seeds, out)
        if strangers:
            check_outliers(data, strangers, args.seeds)


if __name__ == "__main__":
    main()
