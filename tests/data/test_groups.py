"""Groups: images that pairs or shared values join, directly or through others."""

import pickle
import random

import numpy as np
import pytest

from artclf.base.errors import StepError
from artclf.base.processes import map_in_processes
from artclf.data import groups
from artclf.data.groups import (
    components,
    fewer_pairs,
    groups_of_numbers,
    joined,
    with_the_least,
)


class UnionFind:
    """Sets that are merged; each is named by its least member."""

    def __init__(self):
        self.parent = {}

    def find(self, member):
        self.parent.setdefault(member, member)
        while self.parent[member] != member:
            member = self.parent[member]
        return member

    def union(self, a, b):
        least, other = sorted((self.find(a), self.find(b)))
        self.parent[other] = least


def components_by_union(pairs) -> dict:
    sets = UnionFind()
    for a, b in pairs:
        sets.union(a, b)
    return {member: sets.find(member) for member in sets.parent}


# Pairs


def test_without_pairs_there_are_no_groups():
    assert components([]) == components({}) == components(iter(())) == {}


def test_images_that_pairs_join_are_in_one_group_named_by_the_least():
    found = {("c", "d"): "same", ("b", "d"): "detail", ("e", "f"): "mirror"}
    assert components(found) == {"b": "b", "c": "b", "d": "b", "e": "e", "f": "e"}
    crowd = {(f"{a:04}", f"{b:04}"): "same" for b in range(300) for a in range(b)}
    assert components(crowd) == dict.fromkeys((f"{i:04}" for i in range(300)), "0000")


def test_the_order_within_and_of_pairs_makes_no_difference():
    expected = dict.fromkeys("abcd", "a")
    for pairs in (["ab", "bc", "cd"], ["dc", "ba", "cb"], ["bd", "db", "ca", "ad", "ad"]):
        assert components([tuple(pair) for pair in pairs]) == expected
    assert components(("ab", "ba") for _ in range(2)) == {"ab": "ab", "ba": "ab"}


def test_a_pair_of_an_image_with_itself_is_a_group_of_one():
    assert components([("b", "b"), ("a", "c")]) == {"a": "a", "b": "b", "c": "a"}


def test_a_long_chain_is_one_group():
    chain = [(f"{i:05}", f"{i + 1:05}") for i in range(20_000)]
    random.Random(0).shuffle(chain)
    assert components(chain) == dict.fromkeys((f"{i:05}" for i in range(20_001)), "00000")


@pytest.mark.parametrize("seed", range(30))
def test_components_are_those_of_merged_sets_and_of_networkx(seed):
    networkx = pytest.importorskip("networkx")
    rng = random.Random(seed)
    images = [f"{rng.getrandbits(32):08x}"[: rng.randint(1, 8)] for _ in range(rng.randint(1, 60))]
    pairs = [(rng.choice(images), rng.choice(images)) for _ in range(rng.randint(1, 50))]
    found = components(pairs)
    assert found == components_by_union(pairs)
    graph = networkx.Graph(pairs)
    assert found == {
        image: min(group) for group in networkx.connected_components(graph) for image in group
    }


# Numbers, in parts


def serially(function, jobs, chunk_size):
    """Does jobs as workers do: function, jobs and results are copies, and the last come first."""
    for job in reversed(list(jobs)):
        own_function, own_job = pickle.loads(pickle.dumps((function, job)))
        yield [(job, pickle.loads(pickle.dumps(own_function(own_job))))]


def in_processes(function, jobs, chunk_size):
    return map_in_processes(function, jobs, workers=1, chunk_size=chunk_size)


def random_pairs(rng: np.random.Generator, number: int) -> np.ndarray:
    return rng.integers(number, size=(int(rng.integers(2 * number)), 2))


def crowds(rng: np.random.Generator, number: int, pairs_of_each: int = 4) -> np.ndarray:
    """Pairs within eight crowds."""
    total = pairs_of_each * number
    return rng.integers(number // 8, size=(total, 2)) * 8 + rng.integers(8, size=(total, 1))


def chain(rng: np.random.Generator, number: int) -> np.ndarray:
    images = rng.permutation(number)
    return rng.permutation(np.stack([images[:-1], images[1:]], axis=1))


@pytest.mark.parametrize("make", [random_pairs, crowds, chain])
@pytest.mark.parametrize("part", [7, 100, 10_000])
def test_pairs_that_workers_join_in_parts_make_the_same_groups(tmp_path, monkeypatch, make, part):
    networkx = pytest.importorskip("networkx")
    monkeypatch.setattr(groups, "PAIRS_IN_PART", part)
    for seed in range(3):
        pairs = make(np.random.default_rng(seed), 400)
        fewer = fewer_pairs(pairs, tmp_path, serially)
        found = groups_of_numbers(fewer, 400)
        assert found.tolist() == groups_of_numbers(pairs, 400).tolist()
        graph = networkx.Graph()
        graph.add_nodes_from(range(400))
        graph.add_edges_from(pairs.tolist())
        for group in networkx.connected_components(graph):
            assert (found[list(group)] == min(group)).all()


def test_of_many_pairs_one_remains_for_each_image_but_the_least_of_a_group(tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "PAIRS_IN_PART", 300)
    pairs = crowds(np.random.default_rng(0), 96, pairs_of_each=30)
    rounds = []

    def counted(function, jobs, chunk_size):
        rounds.append(len(jobs))
        return serially(function, jobs, chunk_size)

    fewer = fewer_pairs(pairs, tmp_path, counted)
    assert rounds == [10, 3] and len(fewer) <= 300
    assert with_the_least(pairs).tolist() == [[image % 8, image] for image in range(8, 96)]


def test_few_pairs_need_no_workers(tmp_path):
    pairs = chain(np.random.default_rng(0), 30)
    assert fewer_pairs(pairs, tmp_path, None) is pairs and not list(tmp_path.iterdir())


def test_a_process_joins_pairs(tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "PAIRS_IN_PART", 1 << 19)
    pairs = np.stack([np.arange(1 << 20), np.arange(1 << 20) | 255], axis=1)
    fewer = fewer_pairs(pairs, tmp_path, in_processes)
    assert (groups_of_numbers(fewer, 1 << 20) == np.arange(1 << 20) & ~255).all()


def test_workers_that_end_as_they_join_pairs_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "PAIRS_IN_PART", 10)

    def end(function, jobs, chunk_size):
        yield [(job, None) for job in jobs]

    with pytest.raises(StepError, match="workers end when they join pairs to groups: give them"):
        fewer_pairs(chain(np.random.default_rng(0), 30), tmp_path, end)


# Shared values


def test_images_that_share_a_value_are_in_one_group():
    images = ["d", "c", "b", "a"]
    copies = ["x", "", "x", "y"]
    painters = ["", "Goya", "", "Manet"]
    assert joined(images, [copies]) == ["b", "c", "b", "a"]
    assert joined(images, [copies, painters]) == ["b", "c", "b", "a"]
    assert joined(images, [copies, ["Goya", "Goya", "", "Manet"]]) == ["b", "b", "b", "a"]


def test_columns_join_through_each_other():
    assert joined("abcd", [["1", "1", "", ""], ["", "2", "2", ""], ["", "", "3", "3"]]) == ["a"] * 4


def test_a_value_of_one_column_is_not_that_of_another():
    assert joined("ab", [["x", ""], ["", "x"]]) == ["a", "b"]


def test_empty_values_and_no_columns_join_nothing():
    assert joined("cab", [["", "", ""]]) == joined("cab", []) == ["c", "a", "b"]
    assert joined("cab", [[None, None, None]]) == ["c", "a", "b"]
    assert joined([], []) == joined([], [[]]) == []


def test_an_image_that_stands_twice_is_in_one_group():
    assert joined(["b", "a", "b"], [["x", "y", "y"]]) == ["a", "a", "a"]
    assert joined(["b", "a", "b"], []) == ["b", "a", "b"]


@pytest.mark.parametrize("values", [["x"], ["x", "x", "x"]])
def test_a_column_has_a_value_for_each_image(values):
    with pytest.raises(ValueError, match="zip"):
        joined(["a", "b"], [values])


@pytest.mark.parametrize("seed", range(30))
def test_joined_groups_are_those_of_merged_sets(seed):
    rng = random.Random(seed)
    number = rng.randint(1, 80)
    images = [f"{rng.randint(0, 2 * number):03}" for _ in range(number)]
    columns = [
        [rng.choice(["", f"{rng.randint(0, number)}"]) for _ in images]
        for _ in range(rng.randint(0, 3))
    ]
    sets = UnionFind()
    for image in images:
        sets.union(image, image)
    for values in columns:
        for i in range(number):
            for j in range(i):
                if values[i] and values[i] == values[j]:
                    sets.union(images[i], images[j])
    assert joined(images, columns) == [sets.find(image) for image in images]
