"""Predictions made by hand: shared by several tests."""

import pandas as pd


def made_predictions(pairs, part="test", names=None) -> pd.DataFrame:
    """Predictions with the given `(period, predicted)` pairs and one-hot probabilities."""
    table = pd.DataFrame(pairs, columns=["period", "predicted"])
    table = table.assign(
        file=[f"clean/x/{index}.jpg" for index in range(len(table))],
        part=part,
        probability=1.0,
        loss=0.0,
        title="",
        artist="",
        year="",
        source="",
    )
    for name in names or sorted({name for pair in pairs for name in pair}):
        table[f"p_{name}"] = (table.predicted == name).astype(float)
    return table
