"""Batches, rates and places: what several clients share."""

import threading
import time

import numpy as np
import pytest

from artclf.base.errors import SettingError
from artclf.server.batching import Batcher
from artclf.server.limits import Buckets, Busy, Limits, Queue


def picture(number: int) -> np.ndarray:
    return np.full((3, 2, 2), number, np.uint8)


def test_pictures_of_many_clients_are_computed_together_and_each_gets_its_own():
    may_go, sizes = threading.Event(), []

    def compute(pixels):
        may_go.wait(10)
        return pixels[:, 0, 0, 0].astype(int), pixels.sum(axis=(1, 2, 3))

    batcher = Batcher(compute, largest=8, on_batch=sizes.append)
    first = batcher.submit(picture(0))
    time.sleep(0.05)
    answers = [batcher.submit(picture(number)) for number in range(1, 21)]
    may_go.set()
    assert first.result(5) == (0, 0)
    assert [answer.result(5) for answer in answers] == [(n, 12 * n) for n in range(1, 21)]
    assert sizes == [1, 8, 8, 4]
    batcher.close()


def test_an_error_reaches_those_of_its_batch_alone():
    def compute(pixels):
        if pixels.max() == 9:
            raise RuntimeError("nine")
        return (pixels[:, 0, 0, 0],)

    batcher = Batcher(compute)
    with pytest.raises(RuntimeError, match="nine"):
        batcher.submit(picture(9)).result(5)
    assert batcher.submit(picture(1)).result(5) == (1,)
    batcher.close()


def test_what_was_submitted_before_and_after_the_end_is_answered():
    batcher = Batcher(lambda pixels: (pixels[:, 0, 0, 0],))
    before = [batcher.submit(picture(number)) for number in range(40)]
    batcher.close()
    assert [answer.result(0)[0] for answer in before] == list(range(40))
    assert batcher.submit(picture(7)).result(0) == (7,)
    batcher.close()


def test_a_bucket_fills_at_its_rate_up_to_the_burst():
    now = 0.0
    buckets = Buckets(rate=2, burst=4, clock=lambda: now)
    assert [buckets.take("1.2.3.4") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    now = 0.5
    assert buckets.take("1.2.3.4") == 0 and buckets.take("1.2.3.4") == 0.5
    now = 100
    assert buckets.take("1.2.3.4", 4) == 0 and buckets.take("1.2.3.4", 3) == 1.5
    assert buckets.take("1.2.3.5", 4) == 0  # another client
    assert Buckets(rate=0, burst=1).take("1.2.3.4", 99) == 0


def test_a_network_of_ipv6_is_one_client_and_few_are_remembered(monkeypatch):
    buckets = Buckets(rate=0.001, burst=1, clock=lambda: 0)
    assert buckets.take("2001:db8::1") == 0 and buckets.take("2001:db8::2") > 0
    assert buckets.take("2001:db8:0:1::1") == 0
    assert buckets.take("::ffff:1.2.3.4") == 0 and buckets.take("::ffff:1.2.3.5") == 0
    assert buckets.take("no address") == 0 and buckets.take("no address") > 0
    monkeypatch.setattr("artclf.server.limits.CLIENTS", 3)
    for number in range(9):
        buckets.take(f"10.0.0.{number}")
    assert len(buckets._buckets) <= 7


def test_places_are_given_back_even_after_an_error():
    queue = Queue(3)
    with queue.places(2):
        with pytest.raises(Busy), queue.places(2):
            pass
        with queue.places(1):
            assert queue.under_way == 3
    with pytest.raises(ZeroDivisionError), queue.places(3):
        1 / 0  # noqa: B018
    assert queue.under_way == 0
    with queue.places(9):  # a request alone
        assert queue.under_way == 9


@pytest.mark.parametrize(
    "wrong", [{"max_bytes": 0}, {"pictures": 0}, {"rate": -1}, {"queue": 0}, {"burst": 3}]
)
def test_limits_that_make_no_sense_are_refused(wrong):
    with pytest.raises(SettingError):
        Limits(**wrong)
