"""The order of classes."""

import pytest

from artclf.data.classes import in_order
from artclf.model.losses import balanced_weights


@pytest.mark.parametrize(
    "names",
    [
        ["1", "2", "10"],
        ["1-early", "9-realism", "10-late", "020-last"],
        ["01-early_renaissance", "02-high_renaissance", "18-pop-art"],
        ["15th century", "16th century", "baroque", "rococo"],
        ["01-a", "1-a", "1-b", "A", "a"],
    ],
)
def test_numbers_come_in_their_order_and_before_names(names):
    assert in_order(names[::-1]) == names


def test_a_data_set_of_numbers_is_in_their_order_everywhere(tmp_path, no_workers):
    from made_pictures import encoded, noise

    from artclf import clean, download, train
    from artclf.model.loaders import data_loaders
    from artclf.results import evaluation

    folder, data, order = tmp_path / "folder", tmp_path / "data", ["1", "2", "10"]
    for seed, name in enumerate([*order * 4, *["10"] * 6]):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{seed}.png").write_bytes(encoded(noise(seed=seed)))
    assert download.import_folder(folder, data).period.tolist() == order
    assert clean.clean_all(data, near_duplicates=False).index.tolist() == order
    learn = train.learner(data, tmp_path / "out", "efficientnet_lite0", 32, batch_size=2)
    assert learn.config["vocab"] == list(learn.dls.vocab) == order
    files = [data / "clean" / name / "x.jpg" for name in order]
    for file in files:
        (data / "clean" / file.parent.name / "x.jpg").write_bytes(encoded(noise(), "JPEG"))
    loaders = data_loaders(files, [False, False, True], {**learn.config, "batch_size": 1})
    assert [int(loaders.train_ds[place][1]) for place in (0, 1)] == [0, 1]
    table = train.items(data)
    counts = table[table.part == "train"].period.value_counts()
    weights = dict(zip(order, balanced_weights(train.class_counts(table)).tolist(), strict=True))
    assert all(weights[name] * counts[name] == pytest.approx(sum(counts) / 3) for name in order)
    predictions = table.assign(predicted=table.period, **{f"p_{name}": 0.5 for name in order})
    assert evaluation.classes(predictions) == order
