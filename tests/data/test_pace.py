"""Which hosts a download waits for, in words."""

import pytest

from artclf.data import pace
from artclf.data.pace import Pace, duration


@pytest.fixture
def clock(monkeypatch):
    """The time, in a list of one number of seconds."""
    now = [0.0]
    monkeypatch.setattr(pace, "monotonic", lambda: now[0])
    return now


def begun(numbers: dict, others: int = 0) -> Pace:
    run = Pace()
    run.start(sum(numbers.values()) + others)
    for name, number in numbers.items():
        run.host(name, number)
    return run


def test_a_host_with_most_of_the_urls_says_when_it_will_be_done(clock):
    run = begun({"big.test": 9000, "small.test": 20}, others=980)
    clock[0] = 100
    for _ in range(200):
        run.note(run.hosts["big.test"])
    assert run.describe() == (
        "9,800 URLs left, most of them of big.test (8,800, 2 a second): done in about 1.2 h"
    )


def test_hosts_with_more_than_half_are_named_together_and_the_slowest_says_when(clock):
    run = begun({"a.test": 30, "b.test": 40, "c.test": 20}, others=20)
    clock[0] = 10
    for name in ("a.test", "b.test", "b.test"):
        run.note(run.hosts[name])
    assert run.describe() == (
        "107 URLs left, most of them of b.test (38, 0.2 a second), a.test (29, 0.1 a second): "
        "done in about 4.8 min"
    )


def test_a_host_that_has_answered_nothing_yet_says_no_time(clock):
    run = begun({"a.test": 30})
    clock[0] = 10
    assert run.describe() == "30 URLs left, most of them of a.test (30, 0 a second)"


def test_many_hosts_with_few_urls_each_bound_nothing(clock):
    run = begun({f"{i}.test": 10 for i in range(6)})
    assert run.describe() is None
    assert begun({f"{i}.test": 10 for i in range(5)}).describe() is not None


def test_a_url_that_moves_is_left_at_another_host(clock):
    run = begun({"a.test": 3, "b.test": 1})
    first, second = run.hosts["a.test"], run.hosts["b.test"]
    run.note(second)
    assert run.hosts == {"a.test": first}
    run.move(first, second)
    assert (first.left, second.left, run.left) == (2, 1, 3)
    assert run.hosts == {"a.test": first, "b.test": second}
    run.move(first, None)
    run.move(first, None)
    assert run.hosts == {"b.test": second} and run.left == 3
    run.note(second)
    assert run.hosts == {} and run.last is second


def test_at_the_end_the_last_host_is_named(clock):
    run = begun({"a.test": 4, "b.test": 1})
    clock[0] = 2
    run.note(run.hosts["b.test"])
    clock[0] = 80
    for _ in range(4):
        run.note(run.hosts["a.test"])
    assert run.hosts == {} and run.describe() is None
    assert run.describe_end() == ("Done after 1.3 min, last with a.test: 4 URLs, 0.05 a second")
    assert Pace().describe_end() is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(59.4, "59 s"), (60, "1.0 min"), (3600, "1.0 h"), (86399, "24.0 h"), (864000, "10.0 days")],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words
