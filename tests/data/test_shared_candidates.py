"""Candidates by workers are those of one process, however pictures and words are divided."""

import pickle
from functools import partial

import numpy as np
import pytest

from artclf.base.errors import StepError
from artclf.data import candidates, close_hashes, shared_candidates
from artclf.data.matching import MIRROR_BITS, Description, mirror_descriptors
from artclf.data.numbered import Hashes, pairs_of


def serially(function, jobs, chunk_size):
    """Does jobs as workers do: function, jobs and results are copies, and the last come first."""
    for job in reversed(list(jobs)):
        own_function, own_job = pickle.loads(pickle.dumps((function, job)))
        yield [(job, pickle.loads(pickle.dumps(own_function(own_job))))]


def described(pictures: list[Description], name: str) -> Description:
    return pictures[int(name)]


def collection(number: int) -> list[Description]:
    """Pictures whose points are drawn from few, some rarely, so that words have many pictures; with
    copies, mirror images and some without a hash or points.
    """
    rng = np.random.default_rng(6)
    pool = rng.integers(0, 200, (90, 128), dtype=np.uint8)
    frequency = 1 / np.arange(1, 91)
    pictures = []
    for _ in range(number):
        chosen = rng.choice(90, size=25, p=frequency / frequency.sum())
        code = int(rng.integers(0, 1 << 63))
        pictures.append(Description(f"{code:016x}", np.empty((25, 2)), pool[chosen]))
    first, second = pictures[:2]
    pictures[7] = first
    mirrored_hash = f"{int(first.hash, 16) ^ int(MIRROR_BITS):016x}"
    pictures[9] = Description(mirrored_hash, second.points, mirror_descriptors(second.descriptors))
    pictures[11] = Description(None, first.points[:0], first.descriptors[:0])
    return pictures


def hashes_of(pictures: list[Description]) -> Hashes:
    hashes = Hashes(len(pictures))
    hashes.put(np.arange(len(pictures)), [picture.hash for picture in pictures])
    return hashes


@pytest.mark.parametrize(("rows", "partitions", "most"), [(1024, 1, 1000), (16, 60, 20)])
def test_workers_find_the_same_candidates(monkeypatch, tmp_path, rows, partitions, most):
    """Also where a block of pictures has no points, and a partition no words."""
    pictures = collection(70)
    pictures[24:48] = [pictures[11]] * 24
    monkeypatch.setattr(candidates, "MOST_PICTURES", most)
    monkeypatch.setattr(shared_candidates, "BLOCK", rows)
    monkeypatch.setattr(shared_candidates, "SMALLEST_BLOCK", rows)
    monkeypatch.setattr(shared_candidates, "MOST_BLOCKS", 3)
    words = sum(len(set(map(bytes, picture.descriptors))) for picture in pictures)
    monkeypatch.setattr(shared_candidates, "WORDS_IN_PARTITION", -(-words // partitions))
    monkeypatch.setattr(close_hashes, "HASHES_AT_A_TIME", max(10, 70 // partitions))
    here = candidates.by_hash([picture.hash for picture in pictures])
    here |= candidates.by_words(70, lambda i: pictures[i].descriptors)
    found = shared_candidates.find(
        hashes_of(pictures), str, partial(described, pictures), tmp_path, serially
    )
    pairs = pairs_of(found, 70).tolist()
    assert pairs == sorted([i, j, int(mirrored)] for i, j, mirrored in here)
    assert {(0, 7, False), (0, 9, True), (1, 9, True)} <= here and len(here) > 150
    files = list((tmp_path / shared_candidates.INDEX).glob("*-words.npy"))
    assert 0.8 * partitions < len(files) <= partitions
    blocks = len(list((tmp_path / shared_candidates.WORDS).glob("*-words.npy")))
    assert blocks == -(-70 // max(rows, 24))


def test_without_a_second_picture_or_any_point_there_are_no_candidates(tmp_path):
    for pictures in ([], collection(12)[:1], [collection(12)[11]] * 5):
        hashes = hashes_of(pictures)
        function = partial(described, pictures)
        assert shared_candidates.find(hashes, str, function, tmp_path, serially).size == 0


def test_workers_that_end_are_an_error(tmp_path):
    def end(function, jobs, chunk_size):
        yield [(job, None) for job in jobs]

    with pytest.raises(StepError, match=r"search for candidates \(hashes\): give them more memory"):
        hashes = hashes_of(collection(12)[:1])
        shared_candidates.find(hashes, str, partial(described, []), tmp_path, end)
