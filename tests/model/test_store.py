"""The store: what is written is read, within a limit."""

import pytest

from artclf.model.store import Store

VALUE = bytes(40_000)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr("artclf.model.store.LIMIT", 200_000)
    return tmp_path / "store.db"


def test_what_is_written_is_read_by_any_store(file):
    Store(file).write("key", {"a": b"1", "b": b"2"})
    assert Store(file).read("key", ["a", "b", "c"]) == {"a": b"1", "b": b"2"}
    assert Store(file).read("other", ["a"]) == {}
    Store(file).write("key", {"a": b"3"})
    assert Store(file).read("key", ["a"]) == {"a": b"3"} and Store(file).keys() == ["key"]
    many = {f"{number}": b"x" for number in range(1200)}  # more than a query takes
    Store(file).write("many", many)
    assert Store(file).read("many", list(many)) == many


def test_what_is_stored_is_told_without_its_bytes_and_stays(file):
    Store(file).write("key", {"a": VALUE, "b": VALUE})
    store = Store(file)
    assert (
        store.stored("key", ["a", "b", "c"]) == {"a", "b"} and store.stored("other", ["a"]) == set()
    )
    store.write("new", dict.fromkeys("abc", VALUE))  # no room beside a key that is in use
    assert store.stored("key", ["a", "b"]) == {"a", "b"} and store.stored("new", ["a"]) == set()
    many = {f"{number}": b"x" for number in range(1200)}  # more than a query takes
    store.write("many", many)
    assert store.stored("many", list(many)) == set(many)


def test_nothing_to_write_makes_no_key(file):
    Store(file).write("key", {})
    assert Store(file).keys() == []


def test_when_full_the_key_unused_for_longest_is_removed(file):
    for key in ("read", "unread"):
        Store(file).write(key, {"a": VALUE, "b": VALUE})
    Store(file).read("read", ["a"])
    store = Store(file)
    store.write("new", {"a": VALUE, "b": VALUE})
    assert Store(file).read("unread", ["a", "b"]) == {}
    assert set(Store(file).read("read", ["a", "b"])) == {"a", "b"}
    assert set(store.read("new", ["a", "b"])) == {"a", "b"}


def test_what_finds_no_room_is_left_out_and_said_once(file, capsys):
    store = Store(file)
    store.write("key", {"a": VALUE, "b": VALUE})
    too_many = dict.fromkeys("cdefgh", VALUE)
    store.write("key", too_many)
    store.write("key", too_many)
    assert set(store.read("key", ["a", "b", "c"])) == {"a", "b"}
    said = capsys.readouterr().out
    assert said.count("is full") == 1 and "ARTCLF_CACHE_GB" in said


def test_keys_that_this_store_uses_are_never_removed(file):
    store = Store(file)
    store.write("mine", {"a": VALUE, "b": VALUE})
    store.write("more", {"a": VALUE, "b": VALUE})
    store.write("even more", {"a": VALUE, "b": VALUE})
    assert set(store.keys()) == {"mine", "more"}
