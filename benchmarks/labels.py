"""How many wrong labels, and pictures that aren't paintings, stand at the head of the lists of
`artclf.lab.labels`.

    python benchmarks/labels.py FOLDER [--flip 0.1] [--strangers 0.03] [--seeds 3] [--out FOLDER]

The pictures in `FOLDER/<class>/` are imported into a temporary data folder, and with them drawn
pages of text, book covers, maps, empty frames and rooms. Each seed gives another tenth of the
paintings one of the other labels, at random, and runs `labels.mark`; printed is the share of the
wrong labels that stand in the first 10% of the list (mean, and standard deviation over the seeds)
beside other ways to rank: by the probability of the given label alone, from a head that learned
from all labels alike, out of fold or in sample, and by cleanlab's other scores of the same
probabilities. `wrong.png` in the folder `--out` shows the precision by rank. Then, with the labels
as they were, another sample of the drawn strangers is put among the paintings for each seed;
printed is the share of them in the first 5% by `outlier`.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from artclf import download
from artclf.data import cleaning, splits
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.model import doubts, features

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
    columns, size = rng.integers(1, 3), int(rng.integers(9, 16))
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
    ground, ink = tint(rng, 20, 200), tint(rng, 220, 255)
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
        x, y = (
            rng.uniform(0.2, 0.8) * w + radius * np.cos(angle),
            rng.uniform(0.2, 0.8) * h + radius * np.sin(angle),
        )
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
    gold, edge = np.array((150, 110, 50)) + rng.integers(-40, 50), w * rng.uniform(0.08, 0.2)
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
    edge, light = rng.uniform(0.6, 0.75), rng.uniform(-0.3, 0.3)
    wall = np.array(tint(rng, 150, 240)) * (1 + light * x[..., None])
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
    w, h = (400, int(rng.integers(270, 400)))[
        :: 1 if kind in ("room", "map") or rng.random() < 0.3 else -1
    ]
    im = Image.new("RGB", (w, h))
    KINDS[kind](rng, im, ImageDraw.Draw(im), w, h)
    return im


def take_in(folder, data: Path, share: float) -> set[str]:
    """Import the paintings, and twice as many strangers as are wanted at once; the URLs of the
    strangers.
    """
    download.import_folder(folder, data)
    table = read_catalogue(data)
    periods, gallery = sorted(set(table.period)), data / "strangers"
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


def say(data, reviews: dict, periods: dict):
    """Set `review` and `period` of the pictures with these URLs; features are found by the bytes,
    wherever they lie.
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
    rng, urls, periods = np.random.default_rng(seed), sorted(truth), sorted(set(truth.values()))
    return {
        url: rng.choice([period for period in periods if period != truth[url]])
        for url in rng.choice(urls, round(share * len(urls)), replace=False)
    }


def rankings(data, seed: int, wrong: dict) -> tuple[dict, dict]:
    """Which labels are wrong, worst first by each way to rank; and what is picked: share,
    precision, recall.
    """
    doubts.mark(data, seed)
    rows = splits.usable(data)
    x = (features.extract(data, rows) + features.extract(data, rows, mirror=True)) / 2
    y, bad = np.unique(rows.period, return_inverse=True)[1], rows.url.isin(wrong.keys()).to_numpy()
    groups = rows.clean_sha256.to_numpy()
    once = doubts._out_of_fold(x, y, groups, seed)
    head = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
    )
    chances = doubts.probabilities(x, y, groups, seed)
    score = lambda p, method="self_confidence", **more: get_label_quality_scores(
        y, p, method=method, **more
    )
    ways = {
        "labels.mark": 1 - rows.doubt.to_numpy(float),
        "probability, one pass": once[np.arange(len(y)), y],
        "probability, in sample": score(head.fit(x, y).predict_proba(x)),
        "self-confidence, adjusted": score(chances, adjust_pred_probs=True),
        "normalized margin": score(chances, "normalized_margin"),
        "entropy": score(chances, "confidence_weighted_entropy"),
    }
    picked = {
        "labels.flagged": rows.url.isin(
            doubts.flagged(data).query("reasons.str.contains('doubtful')").url
        )
    }
    for name in ("prune_by_noise_rate", "both", "confident_learning"):
        picked[f"cleanlab, {name}"] = find_label_issues(y, chances, filter_by=name, n_jobs=1)
    return {name: bad[np.argsort(values, kind="stable")] for name, values in ways.items()}, {
        name: (np.mean(which), bad[which].mean(), which[bad].mean())
        for name, which in picked.items()
    }


def check_labels(data, strangers: set, truth: dict, share: float, seeds: int, out: Path):
    found = []
    for seed in range(seeds):
        wrong = flip(truth, share, seed)
        say(data, dict.fromkeys(strangers, "drop"), truth | wrong)
        found.append(rankings(data, seed, wrong))
    say(data, {}, truth)
    n = len(truth)
    print(
        f"{n} paintings, {round(share * n)} wrong labels, {seeds} seeds: the share of them in the first 10%"
    )
    print(f"  {'by chance':34} {0.1:6.1%}")
    ways = {name: np.array([ranked[name] for ranked, _ in found]) for name in found[0][0]}
    for name, bad in ways.items():
        hits = bad[:, : round(0.1 * n)].sum(1) / bad.sum(1)
        print(f"  {name:34} {hits.mean():6.1%} ± {hits.std():.1%}")
    print(
        "  picked: share of the pictures, of the picked that are wrong, of the wrong that are picked"
    )
    for name in found[0][1]:
        print(
            f"  {name:34} "
            + " ".join(f"{v:6.1%}" for v in np.mean([picks[name] for _, picks in found], axis=0))
        )
    plot(ways, share, n, out / "wrong.png")


def plot(ways: dict, share: float, n: int, file: Path):
    """Precision by rank: of the first so many pictures of a list, how many have a wrong label."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    ax, rank = figure.subplots(), np.arange(1, n + 1)
    for name in ("labels.mark", "probability, one pass", "probability, in sample"):
        precision = np.cumsum(ways[name], axis=1) / rank
        middle, spread = precision.mean(0), precision.std(0)
        [line] = ax.plot(rank / n, middle, label=name)
        ax.fill_between(
            rank / n, middle - spread, middle + spread, color=line.get_color(), alpha=0.2, lw=0
        )
    ax.axhline(share, color="black", ls=":", label="chance")
    ax.axvline(0.1, color="grey", lw=0.8)
    ax.plot(
        rank / n,
        np.minimum(1, share * n / rank),
        color="black",
        lw=0.8,
        label="the best there could be",
    )
    ax.set(
        xlim=(0.005, 0.4),
        ylim=(0, 1.02),
        xlabel="first part of the list",
        ylabel="of these, wrong labels",
        title=f"{n} paintings, {share:.0%} of the labels wrong: precision by rank",
    )
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.legend()
    figure.savefig(file, dpi=120)
    print(f"  {file}")


def check_outliers(data, strangers: set, seeds: int):
    """Half of the strangers at a time among the paintings, the labels as they were."""
    urls, found = sorted(strangers), []
    for seed in range(seeds):
        chosen = set(np.random.default_rng(seed).choice(urls, len(urls) // 2, replace=False))
        say(data, {url: None if url in chosen else "drop" for url in urls}, {})
        ranked = doubts.mark(data, seed).merge(splits.usable(data)[["file", "url"]], on="file")
        ranked = ranked.sort_values("outlier", ascending=False)
        bad, far = (
            ranked.url.isin(chosen).to_numpy(),
            ranked.reason.str.contains("outlier").to_numpy(),
        )
        found.append(
            [
                bad[: round(0.05 * len(bad))].sum() / bad.sum(),
                far.mean(),
                bad[far].mean(),
                far[bad].mean(),
            ]
        )
    say(data, dict.fromkeys(urls, "drop"), {})
    mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
    print(f"{len(bad) - bad.sum()} paintings, {bad.sum()} strangers, {seeds} seeds")
    print(f"  in the first 5% by outlier score   {mean[0]:6.1%} ± {spread[0]:.1%} (by chance 5.0%)")
    print(
        f"  flagged as outliers {mean[1]:.1%} of the pictures; of the flagged {mean[2]:.1%} are strangers, of the "
        f"strangers {mean[3]:.1%} are flagged"
    )
    far = doubts.mark(data).reason.str.contains("outlier")
    print(f"  without strangers {far.mean():.1%} of the paintings are flagged as outliers")


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
