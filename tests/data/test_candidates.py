"""Candidates: the pairs that are worth comparing, by hash and by visual words."""

from itertools import combinations, permutations

import numpy as np
import pytest

from artclf.data import candidates
from artclf.data.candidates import Candidate, Vocabulary, by_hash, by_words
from artclf.data.matching import MIRROR_BITS, mirror_descriptors, root_sift


def test_close_hashes_are_candidates_as_they_are_and_in_the_mirror():
    rng = np.random.default_rng(0)
    first, second = (int(code) for code in rng.integers(0, 1 << 63, 2))
    close = first ^ 0b1111111  # 7 bits off
    far = second ^ 0b11111111  # 8 bits off
    mirrored = first ^ int(MIRROR_BITS)
    codes = [f"{code:016x}" for code in (first, second, close, far, mirrored)]
    hashes = [codes[0], None, *codes[1:]]
    assert by_hash(hashes) == {(0, 3, False), (0, 5, True), (3, 5, True)}
    assert by_hash([None]) == by_hash([]) == set()


def pictures_of_noise(number: int, points: int = 60) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 200, (points, 128), dtype=np.uint8) for _ in range(number)]


def test_pictures_that_share_descriptors_are_candidates():
    pictures = pictures_of_noise(30)
    pictures[7] = np.concatenate([pictures[20][:40], pictures[7][:20]])
    pictures[9] = mirror_descriptors(pictures[25])
    pictures[11] = pictures[11][:0]  # a picture without points
    found = by_words(30, pictures.__getitem__)
    assert (7, 20, False) in found and (9, 25, True) in found
    assert all(0 <= pair.first < pair.second < 30 for pair in found)
    assert len(found) <= 2 * 30 * candidates.NEIGHBOURS
    assert found == by_words(30, pictures.__getitem__)


def test_of_few_pictures_those_that_share_a_word_are_candidates():
    pictures = pictures_of_noise(6)
    pictures[2] = np.concatenate([pictures[2], pictures[4][:20]])
    pictures[3] = np.concatenate([pictures[3], mirror_descriptors(pictures[5][:20])])
    vocabulary = Vocabulary.drawn_from(6, pictures.__getitem__)
    words = [set(vocabulary.words(points).tolist()) for points in pictures]
    mirrored = [set(vocabulary.words(mirror_descriptors(p)).tolist()) for p in pictures]
    expected = {(i, j, False) for i, j in combinations(range(6), 2) if words[i] & words[j]}
    for i, j in permutations(range(6), 2):
        if mirrored[i] & words[j]:
            expected.add((min(i, j), max(i, j), True))
    found = by_words(6, pictures.__getitem__)
    assert found == expected and {(2, 4, False), (3, 5, True)} <= found and len(found) < 20
    assert all(isinstance(pair, Candidate) for pair in found)


def test_the_vocabulary_grows_with_the_pictures():
    """A word has as many of 40,000 pictures as of 20,000."""
    points = pictures_of_noise(1, points=400)[0]
    few, many = (len(Vocabulary.drawn_from(n, lambda i: points)) for n in (20_000, 40_000))
    assert many == pytest.approx(2 * few, rel=0.01)
    assert few == pytest.approx(25 * 20_000, rel=0.01)
    assert len(Vocabulary.drawn_from(1000, lambda i: points)) == candidates.HALF_WORDS**2


def test_words_weigh_by_rarity_and_count_once_in_a_picture():
    """The eight nearest by cosine of binary vectors, weighted by the squares of smoothed idf."""
    rng = np.random.default_rng(6)
    pool = rng.integers(0, 200, (60, 128), dtype=np.uint8)
    frequency = 1 / np.arange(1, 61)
    pictures = []
    for _ in range(40):
        chosen = rng.choice(60, size=25, p=frequency / frequency.sum())  # common ones repeatedly
        pictures.append(pool[chosen])
    vocabulary = Vocabulary.drawn_from(40, pictures.__getitem__)
    words = [set(vocabulary.words(picture).tolist()) for picture in pictures]
    columns = sorted(set().union(*words))
    has_word = np.array([[word in own for word in columns] for own in words])
    idf = np.log((1 + 40) / (1 + has_word.sum(axis=0))) + 1
    vectors = has_word * idf**2
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    expected = set()
    for picture, row in enumerate(similarity):
        order = np.argsort(-row)
        assert row[order[7]] - row[order[8]] > 1e-6  # no tie decides
        expected |= {(min(picture, i), max(picture, i), False) for i in order[:8].tolist()}
    assert {pair for pair in by_words(40, pictures.__getitem__) if not pair.mirrored} == expected


def test_words_that_many_pictures_have_are_left_out(monkeypatch):
    monkeypatch.setattr(candidates, "MOST_PICTURES", 20)
    common, rare = pictures_of_noise(2, points=40)
    pictures = [np.concatenate([common, own]) for own in pictures_of_noise(30)]
    pictures[3] = np.concatenate([rare, pictures[3][-10:]])
    pictures[8] = np.concatenate([rare[:5], pictures[8]])
    assert (3, 8, False) in by_words(30, pictures.__getitem__)
    same = [common] * 30  # not a word is left
    assert by_words(30, same.__getitem__) == set()


def test_without_a_second_picture_or_any_point_there_are_no_candidates():
    assert by_words(0, lambda i: 1 / 0) == by_words(1, lambda i: 1 / 0) == set()
    assert by_words(5, lambda i: np.empty((0, 128), np.uint8)) == set()


def test_a_word_is_the_pair_of_half_words_closest_to_the_halves_of_a_descriptor():
    descriptors = pictures_of_noise(2, points=40)
    both = np.concatenate([descriptors[0], mirror_descriptors(descriptors[0])])
    words = Vocabulary.of(descriptors[0]).words(descriptors[1]).tolist()
    left = np.arange(128).reshape(4, 4, 8)[:, :2].ravel()  # the columns 0 and 1 of its 4 x 4 cells
    right = np.arange(128).reshape(4, 4, 8)[:, 2:].ravel()
    vectors, vocabulary = root_sift(descriptors[1]), root_sift(both)
    expected = []
    for vector in vectors:
        closest = [
            np.linalg.norm(vocabulary[:, half] - vector[half], axis=1).argmin()
            for half in (left, right)
        ]
        expected.append(closest[0] * len(both) + closest[1])
    assert words == expected and len(set(words)) > 20


def test_words_in_the_mirror_are_those_of_the_mirrored_descriptors():
    of_some, others = pictures_of_noise(2, points=40)
    vocabulary = Vocabulary.of(of_some)
    words = vocabulary.words(others)
    assert (vocabulary.mirrored(words) == vocabulary.words(mirror_descriptors(others))).all()
    assert (vocabulary.mirrored(words) != words).all()
    assert (vocabulary.mirrored(vocabulary.mirrored(words)) == words).all()


def test_a_vocabulary_is_drawn_from_pictures_that_have_points():
    pictures = [*pictures_of_noise(3), np.empty((0, 128), np.uint8)]
    vocabulary = Vocabulary.drawn_from(4, pictures.__getitem__)
    number = vocabulary.half_words.shape[1]
    assert vocabulary.half_words.shape == (2, number, 64)
    assert 0.65 * candidates.HALF_WORDS < number < 0.85 * candidates.HALF_WORDS
    drawn = {half.tobytes() for half in vocabulary.half_words[0]}
    all_points = Vocabulary.of(np.concatenate(pictures)).half_words[0]
    assert drawn <= {half.tobytes() for half in all_points} and len(drawn) > 150
