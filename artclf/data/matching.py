"""Matching: what a picture looks like in numbers, and whether two pictures show the same.

Works on luminances, bytes of shape (SIDE, SIDE); reads pictures, writes nothing. Module
`duplicates` finds the pairs.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from artclf.data.pictures import open_rgb

SIDE, POINTS = (
    320,
    400,
)  # pictures are squashed to a square of so many px; so many of its points are described


RATIO, AGREE = (
    0.85,
    6,
)  # a match is nearer than this times the second nearest; so many must agree on a map


ALIKE, TEXTURE, DETAIL = (
    0.7,
    0.03,
    0.55,
)  # least correlation, least textured share, a detail's largest share


RADIUS = 7  # bits in which the hashes of like pictures may differ


SEEING = f"{SIDE} {POINTS}"  # all that a description depends on, and all that a verdict does


JUDGING = f"2 {SEEING} {RADIUS} {RATIO} {AGREE} {ALIKE} {TEXTURE} {DETAIL}"


WAVES = sorted(
    ((v, u) for v in range(11) for u in range(11) if v + u), key=lambda wave: (sum(wave), wave)
)[:64]


MIRROR = np.uint64(sum(1 << bit for bit, (_, u) in enumerate(WAVES) if u % 2))


FLIPPED = (
    np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()
)  # a descriptor in the mirror


IN_PLACE = {
    False: np.float64([[1, 0, 0], [0, 1, 0]]),
    True: np.float64([[-1, 0, SIDE - 1], [0, 1, 0]]),
}


def light(file) -> np.ndarray:
    """The luminance of the picture in `file`, squashed to a square: bytes of shape (SIDE, SIDE)."""
    return cv2.resize(
        np.asarray(open_rgb(file).convert("L")), (SIDE, SIDE), interpolation=cv2.INTER_AREA
    )


def describe(square: np.ndarray) -> tuple:
    """The hash of a luminance, and its strongest points: places float32 (n, 2), SIFT descriptors
    uint8 (n, 128).
    """
    points, values = cv2.SIFT_create(POINTS, contrastThreshold=0.01).detectAndCompute(square, None)
    places = np.array([point.pt for point in points[:POINTS]], np.float32).reshape(-1, 2)
    return (
        phash(square),
        places,
        (np.empty((0, 128)) if values is None else values[:POINTS]).astype(np.uint8),
    )


def phash(square: np.ndarray) -> str | None:
    """64 bits as 16 hex digits: the signs of the 64 longest waves of a luminance; None for nearly
    one colour.

    With the bits of MIRROR turned it is the hash of the mirror image. After Zauner, Implementation
    and benchmarking of perceptual image hash functions, 2010.
    """
    small = cv2.resize(square, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < 3:
        return None
    waves = cv2.dct(small)
    return f"{sum(int(waves[wave] > 0) << bit for bit, wave in enumerate(WAVES)):016x}"


def root(points) -> np.ndarray:
    """Descriptors as unit vectors (Arandjelovic and Zisserman, Three things everyone should know,
    2012).
    """
    points = np.sqrt(points.astype(np.float32))
    return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-6)


def maps(a: tuple, b: tuple, mirrored: bool) -> Iterator[np.ndarray]:
    """Affine maps (2, 3) that may lay picture `a` (hash, places, descriptors) onto `b`.

    In place if the hashes are near; then that on which most matches agree (RANSAC): points that are
    clearly nearer than the second nearest (Lowe, Distinctive image features from scale-invariant
    keypoints, 2004).
    """
    if (
        a[0]
        and b[0]
        and (int(a[0], 16) ^ int(b[0], 16) ^ int(MIRROR) * mirrored).bit_count() <= RADIUS
    ):
        yield IN_PLACE[mirrored]
    if min(len(a[2]), len(b[2])) < AGREE:
        return
    values = root(a[2][:, FLIPPED] if mirrored else a[2]), root(b[2])
    matches = [
        best
        for best, second in cv2.BFMatcher().knnMatch(*values, 2)
        if best.distance < RATIO * second.distance
    ]
    if len(matches) < AGREE:
        return
    places = (
        a[1][[match.queryIdx for match in matches]],
        b[1][[match.trainIdx for match in matches]],
    )
    affine, agree = cv2.estimateAffine2D(*places, ransacReprojThreshold=4)
    if affine is not None and agree.sum() >= AGREE:
        yield affine


def kind(a: np.ndarray, b: np.ndarray, affine: np.ndarray) -> str:
    """What luminance `a`, laid by `affine`, is to `b`: same, mirror, detail, or nothing (empty)."""
    size = np.linalg.det(affine[:, :2])
    (wide, lean), (slope, tall) = affine[:, :2]
    askew = max(abs(lean), abs(slope)) > 0.4 * min(abs(wide), tall)  # or upside down
    if askew or not 0.1 < abs(size) < 10:
        return ""
    if abs(size) > 1:
        return kind(b, a, cv2.invertAffineTransform(affine))  # the smaller is laid onto the larger
    lay = lambda image, border: cv2.warpAffine(image, affine, (SIDE, SIDE), borderMode=border)
    inside = cv2.erode(lay(np.ones_like(a), cv2.BORDER_CONSTANT), np.ones((5, 5))) > 0
    if inside.mean() < abs(size) / 2:
        return ""
    x, y = (_even(image, inside) for image in (lay(a, cv2.BORDER_REFLECT_101), b))
    if (np.minimum(x[1], y[1]) > 5).sum() < TEXTURE * inside.sum():
        return ""
    if (x[0] @ y[0]) < ALIKE * np.sqrt((x[0] @ x[0]) * (y[0] @ y[0])):
        return ""
    return "mirror" if size < 0 else "detail" if inside.mean() < DETAIL else "same"


def _even(image, inside, window: int = 21) -> np.ndarray:
    """The blurred pixels `inside`, less their mean nearby, over their deviation nearby; and that,
    in grey levels.
    """
    image = cv2.GaussianBlur(image, (0, 0), 1.5).astype(np.float32)
    near_by = lambda values: cv2.blur(values * inside, (window, window))[inside] / weight
    weight = cv2.blur(inside.astype(np.float32), (window, window))[inside]
    mean = near_by(image)
    spread = np.sqrt(np.maximum(0, near_by(image * image) - mean * mean))
    return np.stack([(image[inside] - mean) / (spread + 3), spread])
