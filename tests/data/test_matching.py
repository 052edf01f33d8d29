"""Matching: hashes, points, the maps between two pictures, and whether these show the same."""

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from artclf.data import matching, sample
from artclf.data.matching import (
    MIRROR_BITS,
    Description,
    candidate_maps,
    describe,
    hashes_are_close,
    kind_of_copy,
    mirror_descriptors,
    phash,
    read_luminance,
    root_sift,
)


@pytest.fixture(scope="module")
def squares() -> list[np.ndarray]:
    """The luminances of drawn canvases."""
    canvases = [sample.canvas("05-baroque", number, 300).convert("L") for number in range(3)]
    return [cv2.resize(np.asarray(canvas), (320, 320)) for canvas in canvases]


@pytest.fixture(scope="module")
def world() -> np.ndarray:
    """A large pattern, 1280 x 1280, of which `window` cuts squares."""
    coarse = np.random.default_rng(0).integers(0, 256, (60, 60)).astype(np.float32)
    return cv2.resize(coarse, (1280, 1280), interpolation=cv2.INTER_CUBIC).clip(0, 255)


def window(world, left: float, top: float, size: float) -> np.ndarray:
    """A part of the world, in shares of its side, as a luminance."""
    x, y, side = (round(share * 1280) for share in (left, top, size))
    part = world[y : y + side, x : x + side].astype(np.uint8)
    return cv2.resize(part, (320, 320), interpolation=cv2.INTER_AREA)


def laying(left: float, top: float, size: float) -> np.ndarray:
    """The map that lays such a part onto the whole."""
    return np.array([[size, 0, 320 * left], [0, size, 320 * top]])


# Luminances and hashes


def test_a_luminance_is_a_square_of_320_px(tmp_path):
    half_red = np.zeros((200, 600, 3), np.uint8)
    half_red[:, 300:, 0] = 255
    Image.fromarray(half_red).save(tmp_path / "a.png")
    square = read_luminance(tmp_path / "a.png")
    assert square.shape == (320, 320) and square.dtype == np.uint8
    assert square[:, :159].max() == 0 and set(np.unique(square[:, 161:])) == {76}  # 0.299 * 255


def test_the_hash_has_the_signs_of_the_lowest_frequencies(squares):
    places = [(v, total - v) for total in range(1, 11) for v in range(total + 1)][:64]
    noise = np.random.default_rng(3).integers(0, 256, (10, 320, 320), dtype=np.uint8)
    for square in [*squares, *noise]:
        small = cv2.resize(square, (32, 32), interpolation=cv2.INTER_AREA)
        amplitudes = dctn(small.astype(float))
        bits = "".join("1" if amplitudes[place] > 0 else "0" for place in reversed(places))
        assert phash(square) == f"{int(bits, 2):016x}"


def test_a_picture_of_nearly_one_colour_has_no_hash():
    stripes = np.zeros((320, 320), np.uint8)
    columns = np.arange(320) // 10 % 2 == 0  # 32 columns of 10 px: half of them lighter
    for difference, has_hash in ((5, False), (6, True)):  # the deviation is half of it
        stripes[:, columns] = difference
        assert (phash(stripes) is not None) == has_hash


def test_the_hash_of_the_mirror_image_is_the_hash_with_some_bits_turned(squares):
    for square in squares:
        mirrored = phash(np.ascontiguousarray(square[:, ::-1]))
        assert int(phash(square), 16) ^ int(MIRROR_BITS) == int(mirrored, 16)
        blurred = cv2.resize(cv2.resize(square, (90, 90)), square.shape)
        assert hashes_are_close(phash(square), phash(blurred), False)
        assert not hashes_are_close(phash(square), phash(blurred), True)
        assert hashes_are_close(mirrored, phash(blurred), True)


@pytest.mark.parametrize(("bits", "close"), [(0, True), (7, True), (8, False)])
def test_hashes_are_close_up_to_7_bits(bits, close):
    a = 0x123456789ABCDEF0
    b = a ^ ((1 << bits) - 1)
    assert hashes_are_close(f"{a:016x}", f"{b:016x}", False) == close
    assert hashes_are_close(f"{a ^ int(MIRROR_BITS):016x}", f"{b:016x}", True) == close


def test_a_picture_without_a_hash_is_close_to_none():
    for pair in ((None, "0" * 16), ("0" * 16, None), (None, None)):
        assert hashes_are_close(*pair, False) is False


# Points


def test_the_strongest_points_of_a_picture_are_described(squares):
    detector = cv2.SIFT_create(400, contrastThreshold=0.01)
    for square in squares:
        description = describe(square)
        points, descriptors = detector.detectAndCompute(square, None)
        assert description.hash == phash(square)
        assert description.points.shape == (400, 2) and description.points.dtype == np.float32
        assert description.points.tolist() == [list(point.pt) for point in points[:400]]
        assert description.descriptors.dtype == np.uint8
        assert (description.descriptors == descriptors[:400]).all()


def test_a_plain_square_has_no_points():
    description = describe(np.full((320, 320), 128, np.uint8))
    assert description.hash is None
    assert description.points.shape == (0, 2) and description.descriptors.shape == (0, 128)


def test_descriptors_of_the_mirror_image_are_rearranged(squares):
    """The points of the mirror image that lie where those of the picture do are described alike."""
    square = squares[0]
    plain = describe(square)
    flipped = describe(np.ascontiguousarray(square[:, ::-1]))
    expected = root_sift(mirror_descriptors(plain.descriptors))
    values = root_sift(flipped.descriptors)
    places = plain.points * (-1, 1) + (319, 0)
    distances = np.linalg.norm(places[:, None] - flipped.points, axis=2)
    alike = expected @ values.T
    pairs = [(i, row.argmin()) for i, row in enumerate(distances) if row.min() < 0.5]
    assert len(pairs) > 100
    assert np.median([alike[pair] for pair in pairs]) > 0.95
    assert np.median(alike) < 0.8


def test_descriptors_become_unit_vectors_of_their_roots():
    descriptors = np.zeros((2, 128), np.uint8)
    descriptors[0, :3] = 1, 4, 20
    roots = root_sift(descriptors)
    np.testing.assert_allclose(roots[0, :4], [0.2, 0.4, 20**0.5 / 5, 0], rtol=1e-6)
    assert (roots[1] == 0).all()


# Maps

AFFINE = np.array([[0.8, 0.05, 12], [-0.05, 0.7, 30]])


def described_pair(number: int, spoiled: int = 0, outliers: int = 0, mirrored: bool = False):
    """Two descriptions that share `number` points, whose places AFFINE maps; of these, `spoiled`
    have the second closest as close, and `outliers` lie elsewhere.
    """
    rng = np.random.default_rng(5)
    a_points = rng.uniform(0, 320, (number, 2)).astype(np.float32)
    b_points = (a_points @ AFFINE[:, :2].T + AFFINE[:, 2]).astype(np.float32)
    b_points[:outliers] = rng.uniform(0, 320, (outliers, 2))
    a_values = rng.integers(0, 200, (number, 128), dtype=np.uint8)
    b_values = np.concatenate([a_values, a_values[number - spoiled :]])
    b_points = np.concatenate([b_points, b_points[number - spoiled :]])
    order = rng.permutation(len(b_values))
    if mirrored:
        a_values = mirror_descriptors(a_values)
    return Description(None, a_points, a_values), Description(
        None, b_points[order], b_values[order]
    )


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_map_on_which_the_matches_agree_is_found(mirrored):
    a, b = described_pair(40, outliers=15, mirrored=mirrored)
    [affine] = candidate_maps(a, b, mirrored)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-3)
    assert list(candidate_maps(a, b, not mirrored)) == []


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"number": 6}, True),
        ({"number": 5}, False),
        ({"number": 9, "spoiled": 3}, True),  # 6 clear matches
        ({"number": 9, "spoiled": 4}, False),
        ({"number": 9, "outliers": 3}, True),  # 6 agree
        ({"number": 9, "outliers": 4}, False),
        ({"number": 0}, False),
    ],
)
def test_six_clear_matches_must_agree(options, found):
    a, b = described_pair(**options)
    assert len(list(candidate_maps(a, b, False))) == found


def test_a_picture_with_a_single_point_is_laid_nowhere():
    a, b = described_pair(40)
    single = Description(None, b.points[:1], b.descriptors[:1])
    assert list(candidate_maps(a, single, False)) == list(candidate_maps(single, a, False)) == []


def test_a_match_is_closer_than_85_percent_of_the_second_closest():
    """One dimension tells: `a` has one value, `b` has it at a distance of 10 and of `second`."""
    points = np.random.default_rng(2).uniform(0, 320, (6, 2)).astype(np.float32)
    for share, found in ((0.84, True), (0.86, False)):
        angles = np.array([0.1, 0.1 / share])
        a_values = np.zeros((6, 128))
        b_values = np.zeros((12, 128))
        for i in range(6):  # unit vectors in planes of their own; descriptors are their squares
            a_values[i, 2 * i] = 1
            for j, angle in enumerate(angles):
                chord = 2 * np.arcsin(angle / 2)
                b_values[2 * i + j, 2 * i : 2 * i + 2] = np.cos(chord) ** 2, np.sin(chord) ** 2
        a = Description(None, points, 1e6 * a_values)
        b = Description(None, points.repeat(2, axis=0), 1e6 * b_values)
        assert len(list(candidate_maps(a, b, False))) == found


def test_close_hashes_are_tried_in_place_first():
    a, b = described_pair(20)
    code = "0123456789abcdef"
    mirror_code = f"{int(code, 16) ^ int(MIRROR_BITS):016x}"
    first, second = candidate_maps(
        Description(code, a.points, a.descriptors),
        Description(code, b.points, b.descriptors),
        False,
    )
    assert first.tolist() == [[1, 0, 0], [0, 1, 0]]
    np.testing.assert_allclose(second, AFFINE, atol=1e-3)
    empty = describe(np.zeros((320, 320), np.uint8))
    plain = Description(code, empty.points, empty.descriptors)
    mirrored = Description(mirror_code, empty.points, empty.descriptors)
    [in_place] = candidate_maps(plain, mirrored, True)
    assert in_place.tolist() == [[-1, 0, 319], [0, 1, 0]]
    assert list(candidate_maps(plain, mirrored, False)) == []


# Kinds


def test_a_picture_in_place_is_the_same_or_the_mirror_image(squares):
    a, b, _ = squares
    flipped = np.ascontiguousarray(a[:, ::-1])
    assert kind_of_copy(a, a, matching.IN_PLACE) == "same"
    assert kind_of_copy(flipped, a, matching.IN_PLACE_MIRRORED) == "mirror"
    assert kind_of_copy(flipped, a, matching.IN_PLACE) == ""
    assert kind_of_copy(a, b, matching.IN_PLACE) == ""


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        (0.31, ""),  # less than a tenth of the area
        (0.32, "detail"),
        (0.5, "detail"),
        (0.75, "detail"),  # covers 54.4% without its edges
        (0.76, "same"),  # 55.9%
        (0.9, "same"),
    ],
)
def test_a_part_is_a_detail_or_the_same_whichever_is_laid_onto_the_other(world, size, kind):
    part = window(world, 0.1, 0.05, size)
    whole = window(world, 0, 0, 1)
    affine = laying(0.1, 0.05, size)
    assert kind_of_copy(part, whole, affine) == kind
    assert kind_of_copy(whole, part, cv2.invertAffineTransform(affine)) == kind


def test_a_mirrored_part_is_a_mirror_image(world):
    part = np.ascontiguousarray(window(world, 0.2, 0.1, 0.6)[:, ::-1])
    affine = np.array([[-0.6, 0, 0.2 * 320 + 0.6 * 319], [0, 0.6, 0.1 * 320]])
    assert kind_of_copy(part, window(world, 0, 0, 1), affine) == "mirror"
    upside_down = np.ascontiguousarray(part[::-1])
    affine = np.array([[-0.6, 0, 0.2 * 320 + 0.6 * 319], [0, -0.6, 0.1 * 320 + 0.6 * 319]])
    assert kind_of_copy(upside_down, window(world, 0, 0, 1), affine) == ""


@pytest.mark.parametrize(("shift", "kind"), [(0.1, "same"), (0.45, "detail"), (0.52, "")])
def test_half_of_the_smaller_picture_must_lie_on_the_larger(world, shift, kind):
    left, right = window(world, 0, 0, 0.6), window(world, 0.6 * shift, 0, 0.6)
    affine = np.array([[1, 0, -320 * shift], [0, 1, 0]])
    assert kind_of_copy(left, right, affine) == kind


@pytest.mark.parametrize(("share", "kind"), [(0.36, "same"), (0.42, "")])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_picture_may_be_turned_or_sheared_a_little(world, share, kind, axis):
    whole = window(world, 0, 0, 1)
    affine = np.array([[0.9, 0, 10], [0, 0.9, 10]])
    affine[axis, 1 - axis] = -0.9 * share
    inverse = cv2.invertAffineTransform(affine)
    part = cv2.warpAffine(whole, inverse, (320, 320), borderMode=cv2.BORDER_REFLECT_101)
    assert kind_of_copy(part, whole, affine) == kind


def test_two_pixels_at_the_edge_of_the_smaller_picture_do_not_count():
    assert matching._inside(matching.IN_PLACE).all()  # at the edge of the larger they do
    inside = matching._inside(np.array([[1, 0, 100], [0, 1, -50.0]]))
    expected = np.zeros((320, 320), bool)
    expected[: 320 - 50 - 2, 100 + 2 :] = True
    assert (inside == expected).all()


def look_alike(monkeypatch, values, deviations, inside=100) -> bool:
    """What `_look_alike` says where two pictures have these values and deviations."""
    pairs = zip(values, deviations, strict=True)
    monkeypatch.setattr(matching, "_normalise_locally", lambda image, inside: next(pairs))
    return matching._look_alike(None, None, np.ones(inside, bool))


@pytest.mark.parametrize(("correlation", "alike"), [(1, True), (0.71, True), (0.69, False)])
def test_the_correlation_must_be_70_percent(monkeypatch, correlation, alike):
    a = np.array([3.0, 0.0])
    b = 2 * np.array([correlation, (1 - correlation**2) ** 0.5])
    assert look_alike(monkeypatch, [a, b], [np.full(100, 9.0)] * 2) == alike


@pytest.mark.parametrize(
    ("a_textured", "b_textured", "alike"), [(3, 3, True), (9, 2, False), (2, 9, False)]
)
def test_both_pictures_must_have_texture(monkeypatch, a_textured, b_textured, alike):
    values = np.array([1.0, 2.0])
    deviations = []
    for number in (a_textured, b_textured):
        deviations.append(np.where(np.arange(100) < number, 5.1, 5.0))
    assert look_alike(monkeypatch, [values, values], deviations) == alike


def test_pixels_are_normalised_by_the_21_px_around_them(squares):
    rng = np.random.default_rng(4)
    inside = np.zeros((320, 320), bool)
    inside[40:250, 30:200] = True
    inside[100:110, 90:95] = False
    values, deviations = matching._normalise_locally(squares[0], inside)
    assert len(values) == len(deviations) == inside.sum()
    blurred = cv2.GaussianBlur(squares[0], (0, 0), 1.5).astype(float)
    places = np.argwhere(inside)
    for i in [*rng.integers(len(places), size=200), 0, len(places) - 1]:
        y, x = places[i]
        around = np.s_[y - 10 : y + 11, x - 10 : x + 11]
        pixels = blurred[around][inside[around]]
        assert deviations[i] == pytest.approx(pixels.std(), abs=0.05)
        expected = (blurred[y, x] - pixels.mean()) / (pixels.std() + 3)
        assert values[i] == pytest.approx(expected, abs=0.02)


def test_matches_are_those_of_opencvs_search():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (300, 128), dtype=np.uint8)
    b = np.concatenate([a[:100], rng.integers(0, 256, (250, 128), dtype=np.uint8)])
    noise = rng.integers(-60, 61, b.shape)
    b = np.clip(b + noise, 0, 255).astype(np.uint8)
    searched = cv2.BFMatcher().knnMatch(matching.root_sift(a), matching.root_sift(b), 2)
    expected = [
        (closest.queryIdx, closest.trainIdx)
        for closest, second in searched
        if closest.distance < matching.MAX_RATIO * second.distance
    ]
    found = list(zip(*matching.matches(a, b), strict=True))
    assert found == expected and len(found) >= 90


def test_a_descriptor_that_stands_twice_has_no_match():
    rng = np.random.default_rng(1)
    one = rng.integers(0, 256, (1, 128), dtype=np.uint8)
    others = rng.integers(0, 256, (9, 128), dtype=np.uint8)
    from_indices, _ = matching.matches(one, np.concatenate([one, one, others]))
    assert len(from_indices) == 0
    found = matching.matches(one, np.concatenate([others, one]))
    assert [indices.tolist() for indices in found] == [[0], [9]]


# Pictures side by side


def test_a_rectangle_is_where_a_square_is_laid():
    affine = np.array([[0.5, 0.1, -20], [0, 0.5, 40]])
    assert matching.rectangle_of(affine).tolist() == [0, 40, 172, 200]
    mirrored = np.array([[-0.5, 0, 200], [0, 1, 0]])
    assert matching.rectangle_of(mirrored).tolist() == [40, 0, 200, 320]


@pytest.mark.parametrize(
    "other, share", [([10, 0, 20, 10], 0), ([5, 0, 15, 20], 0.5), ([2, 2, 4, 4], 1)]
)
def test_the_overlap_is_a_share_of_the_smaller_rectangle(other, share):
    one = np.array([0, 0, 10, 10])
    assert matching.overlap(one, np.array(other)) == share
    assert matching.overlap(np.array(other), one) == share


def steps_of(left: int, right: int) -> np.ndarray:
    """Noise with a dark and a light half; the step between the halves is at column 160."""
    grey = np.random.default_rng(0).integers(0, 11, (320, 320))
    grey[:, :160] += left
    grey[:, 160:] += right
    return grey.astype(np.uint8)


@pytest.mark.parametrize(
    "right, rectangle, found",
    [
        (60, [160, 0, 320, 320], True),
        (60, [157, 0, 320, 320], True),  # laid a little beside it
        (60, [140, 0, 320, 320], False),
        (60, [80, 0, 160, 320], True),  # one of two sides has a clear edge
        (14, [80, 0, 160, 320], False),
        (14, [160, 0, 320, 320], True),
        (0, [160, 0, 320, 320], False),
        (60, [0, 0, 320, 320], False),
    ],
)
def test_a_picture_beside_others_stands_out_by_its_edges(right, rectangle, found):
    for luminance in (steps_of(0, right), steps_of(0, right).T):
        corners = np.array(rectangle, float)
        if luminance.flags.f_contiguous and not luminance.flags.c_contiguous:
            corners = corners[[1, 0, 3, 2]]
        assert matching.stands_out(luminance, corners) == found
