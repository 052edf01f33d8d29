"""Loaders: fastai's `DataLoaders` of picture files, as training and prediction need them."""

from artclf.data.pictures import resizing


def data_loaders(files, valid, config: dict, path="."):
    """fastai `DataLoaders` of picture files in class folders, augmented on batches.

    `valid` says of each file whether it is of the validation part; `config` needs `vocab, size,
    resize, mean, std` and `batch_size`.
    """
    from fastai.vision import all as vision

    normalise = vision.Normalize.from_stats(config["mean"], config["std"])
    valid_places = [place for place, is_valid in enumerate(valid) if is_valid]
    block = vision.DataBlock(
        blocks=(vision.ImageBlock, vision.CategoryBlock(vocab=config["vocab"], sort=False)),
        get_y=vision.parent_label,
        splitter=vision.IndexSplitter(valid_places),
        item_tfms=resizing(config["size"], config["resize"]),
        batch_tfms=[*vision.aug_transforms(), normalise],
    )
    return block.dataloaders(list(files), bs=config["batch_size"], path=path)
