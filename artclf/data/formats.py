"""Formats: the pictures that are taken, from servers, from folders and for prediction alike."""

# by Pillow's name: the suffixes of such files; in DATA/raw/ they get the first one
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
}
EXTENSIONS = {name: suffixes[0].removeprefix(".") for name, suffixes in FORMATS.items()}
# of names that are taken for pictures; the bytes decide
IMAGE_SUFFIXES = {suffix for suffixes in FORMATS.values() for suffix in suffixes}
