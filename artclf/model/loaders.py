"""Loaders: fastai's `DataLoaders` of picture files, as training and prediction need them."""


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


def resizing(size: int, resize: str):
    """fastai's transform that brings a picture to `size` x `size` px; `resize` is one of
    `pictures.RESIZE`.

    For a picture that is not augmented it gives what `pictures.square` does.
    """
    from fastai.vision.all import PadMode, Resize, ResizeMethod

    methods = {
        "squish": ResizeMethod.Squish,
        "crop": ResizeMethod.Crop,
        "pad": ResizeMethod.Pad,
    }
    return Resize(size, method=methods[resize], pad_mode=PadMode.Zeros)
