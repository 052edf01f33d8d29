"""Prefetching: the order is kept, and the next batch is computed meanwhile."""

import threading

import pytest

from artclf.base.threads import prefetch


@pytest.mark.parametrize("number", [0, 1, 63, 64, 65, 129])
def test_batches_come_in_order_with_the_place_of_their_first_item(number):
    batches = list(prefetch(lambda x: x * 2, range(number), 64))
    assert [x for _, batch in batches for x in batch] == [2 * i for i in range(number)]
    assert [start for start, _ in batches] == list(range(0, number, 64))
    assert all(len(batch) == 64 for _, batch in batches[:-1])


def test_the_next_batch_alone_is_computed_while_the_caller_works():
    computed = {i: threading.Event() for i in range(6)}

    def compute(i):
        computed[i].set()
        return i

    batches = prefetch(compute, range(6), 2)
    assert next(batches) == (0, [0, 1])
    assert computed[2].wait(10) and computed[3].wait(10)
    assert not computed[4].is_set() and not computed[5].is_set()
    assert list(batches) == [(2, [2, 3]), (4, [4, 5])]


def test_an_error_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda x: 1 // x, [1, 0], 1))
