"""Groups: images that pairs or shared values join, directly or through others."""

import random

import pytest

from artclf.data.groups import components, joined


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
