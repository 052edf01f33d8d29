"""Loaders: fastai's `DataLoaders` of pictures, as training and prediction need them."""

from operator import attrgetter, methodcaller

from artclf.data.packs import PackedPicture


def data_loaders(files, valid, config: dict, path="."):
    """fastai `DataLoaders` of pictures in class folders, augmented on batches.

    `files` are paths, or pictures in a pack; the last folder is the label of both. `valid` says of
    each file whether it is of the validation part; `config` needs `vocab, size, resize, mean, std` and
    `batch_size`.
    """
    from fastai.vision import all as vision

    files = list(files)
    is_packed = isinstance(files[0], PackedPicture)
    normalise = vision.Normalize.from_stats(config["mean"], config["std"])
    valid_places = [place for place, is_valid in enumerate(valid) if is_valid]
    block = vision.DataBlock(
        blocks=(vision.ImageBlock, vision.CategoryBlock(vocab=config["vocab"], sort=False)),
        get_x=methodcaller("read") if is_packed else None,
        get_y=attrgetter("parent.name"),  # fastai's parent_label takes paths alone
        splitter=vision.IndexSplitter(valid_places),
        item_tfms=resizing(config["size"], config["resize"]),
        batch_tfms=[*vision.aug_transforms(), normalise],
    )
    return block.dataloaders(files, bs=config["batch_size"], path=path)


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
