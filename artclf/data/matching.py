"""Matching: whether two pictures show the same, and how.

Works on luminances: how light the pixels of a picture are, a uint8 array of shape (SIDE, SIDE).
A long picture, such as a wall of paintings, is also described at its own shape, in which it is not
squashed more than the paintings on it are.
Reads pictures, writes nothing. Module `duplicates` decides which pairs are compared, and what
follows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from artclf.data.pictures import MAX_SIZE, open_rgb

SIDE = 320  # px; pictures are squashed to a square
POINTS = 400  # so many of the strongest points of a picture are described
LONG = 1.6  # a picture with sides in this ratio, or a higher one, is long
LONGEST = 5  # times SIDE; longer pictures are squashed to that

MAX_BITS = 7  # the hashes of two forms of one picture differ in at most so many bits
MAX_RATIO = 0.85  # a match is closer than this times the second closest
ROUNDING = 1e-6  # of a product of unit vectors in float32
MIN_MATCHES = 6  # so many matches must agree on a map

MAX_SHEAR = 0.4  # of the scale of a map; more is askew
MAX_AREA_RATIO = 10  # of two pictures, one laid onto the other
MIN_CORRELATION = 0.7  # of the pixels that two pictures share
MIN_DEVIATION = 5  # in grey levels; a pixel whose surroundings vary more is textured
MIN_TEXTURED = 0.03  # the share of the shared pixels that must be textured in both
MAX_DETAIL = 0.55  # the share of the larger picture that a detail covers at most
WINDOW = 21  # px; the surroundings of a pixel

EDGE_REACH = 4  # px; so far from where it is looked for, an edge may be
EDGE_SURROUNDINGS = 16  # px
MIN_EDGE = 2.0  # times the median step in luminance around it
CLEAR_EDGE = 5.0

# All that a description depends on, and all that a verdict on a pair depends on besides. The first
# number is to be raised when the code gives other results.
DESCRIPTION_VERSION = str((3, SIDE, POINTS, LONG, LONGEST))
VERDICT_VERSION = str(
    (
        4,
        DESCRIPTION_VERSION,
        MAX_BITS,
        MAX_RATIO,
        MIN_MATCHES,
        MAX_SHEAR,
        MAX_AREA_RATIO,
        MIN_CORRELATION,
        MIN_DEVIATION,
        MIN_TEXTURED,
        MAX_DETAIL,
        WINDOW,
    )
)


def _lowest_frequencies(count: int) -> list[tuple[int, int]]:
    """The lowest frequencies (vertical, horizontal) of a cosine transform, without the mean."""
    frequencies = []
    total = 1
    while len(frequencies) < count:
        frequencies += [(v, total - v) for v in range(total + 1)]
        total += 1
    return frequencies[:count]


FREQUENCIES = _lowest_frequencies(64)  # one per bit of the hash

# A mirror image has the opposite sign at odd horizontal frequencies: these bits of its hash differ.
MIRROR_BITS = np.uint64(sum(1 << bit for bit, (_, h) in enumerate(FREQUENCIES) if h % 2 == 1))

# Where the values of a SIFT descriptor (4 rows x 4 columns x 8 directions) lie in the mirror. Its
# grid is turned to the orientation of its point: columns lead ahead, rows from left to right. A
# mirror swaps left and right as seen along the orientation, so it swaps the rows, whichever way the
# point looks. Directions are angles to the orientation, and change their sign.
MIRRORED_VALUES = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()

IN_PLACE = np.array([[1, 0, 0], [0, 1, 0]], np.float64)  # maps a square onto itself
IN_PLACE_MIRRORED = np.array([[-1, 0, SIDE - 1], [0, 1, 0]], np.float64)


@dataclass(frozen=True)
class Description:
    """What a picture looks like, in numbers.

    `hash` is its `phash`, None for nearly one colour; `points` are its strongest points (x, y) in
    px, float32 of shape (n, 2); `descriptors` are their SIFT descriptors, uint8 of
    shape (n, 128).
    """

    hash: str | None
    points: np.ndarray
    descriptors: np.ndarray


def read_luminance(file) -> np.ndarray:
    """The luminance of the picture in `file`, squashed to a square: uint8 of shape (SIDE, SIDE)."""
    return _resize(_read_grey(file), SIDE, SIDE)


def describe_file(file) -> Description:
    """The description of the picture in `file`."""
    grey = _read_grey(file)
    height, width = grey.shape
    square = _resize(grey, SIDE, SIDE)
    if max(width, height) < LONG * min(width, height):
        return describe(square)
    shorter = min(width, height)
    wide = round(SIDE * min(width / shorter, LONGEST))
    high = round(SIDE * min(height / shorter, LONGEST))
    return describe(square, _resize(grey, wide, high))


def _read_grey(file) -> np.ndarray:
    return np.asarray(open_rgb(file, MAX_SIZE).convert("L"))


def _resize(grey: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)


def describe(luminance: np.ndarray, long: np.ndarray | None = None) -> Description:
    """The description of a luminance; `long` is that of a long picture at its own shape, whose
    points are described, too.
    """
    points, descriptors = _strongest_points(luminance, POINTS)
    if long is not None:
        height, width = long.shape
        count = POINTS * max(width, height) // SIDE
        more_points, more_descriptors = _strongest_points(long, count)
        more_points = more_points * np.array([SIDE / width, SIDE / height], np.float32)
        points = np.concatenate([points, more_points])
        descriptors = np.concatenate([descriptors, more_descriptors])
    return Description(phash(luminance), points, descriptors)


def _strongest_points(luminance: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` strongest points (x, y) of a luminance, and their SIFT descriptors, as in
    `Description`.
    """
    sift = cv2.SIFT.create(count, contrastThreshold=0.01)
    keypoints, descriptors = sift.detectAndCompute(luminance, None)
    if descriptors is None:
        descriptors = np.empty((0, 128))
    points = np.array([keypoint.pt for keypoint in keypoints[:count]], np.float32).reshape(-1, 2)
    return points, descriptors[:count].astype(np.uint8)


def phash(luminance: np.ndarray) -> str | None:
    """64 bits as 16 hex digits: the signs of the 64 lowest frequencies of a luminance; None for
    nearly one colour.

    With `MIRROR_BITS` flipped it is the hash of the mirror image. After Zauner, Implementation and
    benchmarking of perceptual image hash functions, 2010.
    """
    small = cv2.resize(luminance, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < 3:
        return None
    amplitudes = cv2.dct(small)
    bits = sum(1 << bit for bit, pair in enumerate(FREQUENCIES) if amplitudes[pair] > 0)
    return f"{bits:016x}"


def hashes_are_close(a: str | None, b: str | None, mirrored: bool) -> bool:
    """Whether two hashes differ in at most `MAX_BITS` bits, the first as it is or in the mirror."""
    if a is None or b is None:
        return False
    difference = int(a, 16) ^ int(b, 16)
    if mirrored:
        difference ^= int(MIRROR_BITS)
    return difference.bit_count() <= MAX_BITS


def mirror_descriptors(descriptors: np.ndarray) -> np.ndarray:
    """The descriptors, (n, 128), that the same points have in the mirror image."""
    return descriptors[:, MIRRORED_VALUES]


def root_sift(descriptors: np.ndarray) -> np.ndarray:
    """Descriptors, (n, 128), as unit vectors (Arandjelovic and Zisserman, Three things everyone
    should know, 2012).
    """
    roots = np.sqrt(descriptors.astype(np.float32))
    return roots / np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), 1e-6)


def candidate_maps(a: Description, b: Description, mirrored: bool) -> Iterator[np.ndarray]:
    """Affine maps, (2, 3), that may lay picture `a`, or its mirror image, onto `b`.

    The first keeps it in place, where the hashes are close; the second is that on which most
    matching points agree.
    """
    if hashes_are_close(a.hash, b.hash, mirrored):
        yield IN_PLACE_MIRRORED if mirrored else IN_PLACE
    affine = _map_of_matches(a, b, mirrored)
    if affine is not None:
        yield affine


def matches(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the descriptors in `a`, (n, 128), that have a match in `b`, (m, 128), and those
    of their matches.

    A match is clearly closer than the second closest (Lowe, Distinctive image features from
    scale-invariant keypoints, 2004). For unit vectors, distances follow from a product of matrices,
    which is many times faster than a search.
    """
    cosines = root_sift(a) @ root_sift(b).T
    rows = np.arange(len(a))
    closest = cosines.argmax(axis=1)
    closest_distance = 1 - cosines[rows, closest]  # half the squared distance
    cosines[rows, closest] = -1
    second_distance = 1 - cosines.max(axis=1)
    is_match = closest_distance < MAX_RATIO**2 * second_distance - ROUNDING
    return rows[is_match], closest[is_match]


def _map_of_matches(a: Description, b: Description, mirrored: bool) -> np.ndarray | None:
    """The affine map on which most matches agree (RANSAC); None where these are too few."""
    if min(len(a.descriptors), len(b.descriptors)) < MIN_MATCHES:
        return None
    descriptors = mirror_descriptors(a.descriptors) if mirrored else a.descriptors
    from_indices, to_indices = matches(descriptors, b.descriptors)
    if len(from_indices) < MIN_MATCHES:
        return None
    from_points = a.points[from_indices]
    to_points = b.points[to_indices]
    affine, agree = cv2.estimateAffine2D(from_points, to_points, ransacReprojThreshold=4)
    if affine is None or agree.sum() < MIN_MATCHES:
        return None
    return affine


def kind_of_copy(a: np.ndarray, b: np.ndarray, affine: np.ndarray) -> str:
    """What luminance `a`, laid onto `b` by an affine map, is to `b`: same, mirror, detail, or
    nothing (empty).
    """
    area_ratio = np.linalg.det(affine[:, :2])  # negative in the mirror
    if _is_askew(affine) or not 1 / MAX_AREA_RATIO < abs(area_ratio) < MAX_AREA_RATIO:
        return ""
    if abs(area_ratio) > 1:  # the smaller is laid onto the larger
        return kind_of_copy(b, a, cv2.invertAffineTransform(affine))
    inside = _inside(affine)
    if inside.mean() < abs(area_ratio) / 2:  # most of `a` is laid beside `b`
        return ""
    laid = cv2.warpAffine(a, affine, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT_101)
    if not _look_alike(laid, b, inside):
        return ""
    if area_ratio < 0:
        return "mirror"
    return "detail" if inside.mean() < MAX_DETAIL else "same"


def _is_askew(affine: np.ndarray) -> bool:
    """Whether a map turns or shears a picture by much, or turns it upside down."""
    (x_scale, x_shear), (y_shear, y_scale) = affine[:, :2]
    is_upside_down = y_scale < 0  # a negative `x_scale` is a mirror's
    is_sheared = max(abs(x_shear), abs(y_shear)) > MAX_SHEAR * min(abs(x_scale), abs(y_scale))
    return is_upside_down or is_sheared


def _inside(affine: np.ndarray) -> np.ndarray:
    """The pixels that a square covers when an affine map lays it onto another, less 2 px at its
    edge: bool, (SIDE, SIDE).
    """
    square = np.ones((SIDE, SIDE), np.uint8)
    covered = cv2.warpAffine(square, affine, (SIDE, SIDE), borderMode=cv2.BORDER_CONSTANT)
    return cv2.erode(covered, np.ones((5, 5))) > 0


def _look_alike(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> bool:
    """Whether two luminances are light and dark in the same places, and have texture there."""
    a_values, a_deviations = _normalise_locally(a, inside)
    b_values, b_deviations = _normalise_locally(b, inside)
    textured = np.minimum(a_deviations, b_deviations) > MIN_DEVIATION
    if textured.sum() < MIN_TEXTURED * inside.sum():
        return False
    norm = np.sqrt((a_values @ a_values) * (b_values @ b_values))
    return bool(a_values @ b_values >= MIN_CORRELATION * norm)


def _normalise_locally(image: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The blurred pixels `inside`, less the mean of their surroundings, over the deviation there;
    and that deviation, in grey levels.
    """
    image = cv2.GaussianBlur(image, (0, 0), 1.5).astype(np.float32)
    window = (WINDOW, WINDOW)
    share_inside = cv2.blur(inside.astype(np.float32), window)[inside]

    def local_mean(values):
        return cv2.blur(values * inside, window)[inside] / share_inside

    mean = local_mean(image)
    variance = local_mean(image * image) - mean * mean
    deviation = np.sqrt(np.maximum(0, variance))
    return (image[inside] - mean) / (deviation + 3), deviation


def rectangle_of(affine: np.ndarray) -> np.ndarray:
    """The smallest upright rectangle around a square that an affine map lays onto another, cut off
    at the other's edges: left, top, right, bottom in px.
    """
    corners = np.array([[0, 0], [SIDE, 0], [0, SIDE], [SIDE, SIDE]])
    laid = (corners @ affine[:, :2].T + affine[:, 2]).clip(0, SIDE)
    return np.concatenate([laid.min(axis=0), laid.max(axis=0)])


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """The share of the smaller of two rectangles that lies in the other, 0 to 1."""
    top_left = np.maximum(one[:2], other[:2])
    bottom_right = np.minimum(one[2:], other[2:])
    shared = np.prod(np.maximum(bottom_right - top_left, 0))
    areas = [np.prod(rectangle[2:] - rectangle[:2]) for rectangle in (one, other)]
    return float(shared / max(min(areas), 1))


def stands_out(luminance: np.ndarray, rectangle: np.ndarray) -> bool:
    """Whether a rectangle in a luminance has straight edges, as a picture put beside others has, and
    a detail cut out of a picture has not.

    That is an edge at every side that isn't a side of the luminance, or a clear one at one of them:
    where the picture was cropped, the others lie elsewhere.
    """
    left, top, right, bottom = rectangle
    steps = []
    for grey, at, start, end in (
        (luminance.T, left, top, bottom),
        (luminance.T, right, top, bottom),
        (luminance, top, left, right),
        (luminance, bottom, left, right),
    ):
        if EDGE_REACH < at < SIDE - EDGE_REACH:
            steps.append(_step(grey, at, start, end))
    return bool(steps) and (min(steps) >= MIN_EDGE or max(steps) >= CLEAR_EDGE)


def _step(grey: np.ndarray, at: float, start: float, end: float) -> float:
    """How much the luminance changes at row `at`, from column `start` to `end`, over the change
    from row to row around it.
    """
    columns = grey[:, round(start) : round(end)].astype(np.float32)
    change = np.abs(np.diff(columns, axis=0)).mean(axis=1)
    row = round(at)
    first = max(row - EDGE_SURROUNDINGS, 0)
    near = slice(max(row - EDGE_REACH, 0), row + EDGE_REACH)
    around = [change[first : near.start], change[near.stop : row + EDGE_SURROUNDINGS]]
    usual = np.median(np.concatenate(around))
    return float(change[near].max() / max(usual, 0.5))
