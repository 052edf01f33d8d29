"""What the workers of Ray are given, shown without Ray."""

from types import SimpleNamespace

import pytest

from artclf.cluster import workers


class Actor:
    """Notes the jobs that a worker is given, which stay under way."""

    def __init__(self):
        self.given: list[list] = []
        self.do = SimpleNamespace(remote=self.take)

    def take(self, jobs: list) -> object:
        self.given.append(jobs)
        return object()


@pytest.fixture
def actors() -> list[Actor]:
    return [Actor(), Actor()]


@pytest.fixture
def run(actors) -> workers._Run:
    """Chunks of one job for two workers that have started."""
    run = workers._Run(None, 2, (), iter([[1], [2], [3], [4], [5]]))
    run.ready = {actor: [] for actor in actors}
    return run


def test_a_worker_has_one_chunk_to_do_and_the_next(run, actors):
    run._hand_out()
    run._hand_out()
    assert [actor.given for actor in actors] == [[[1], [2]], [[3], [4]]]


def test_a_job_that_is_done_again_has_its_worker_for_itself(run, actors):
    """What waited behind it would be lost with it, and be taken for the cause."""
    suspect, other = actors
    run.again.append(workers._Call(None, [0]))
    for _ in range(2):
        run._hand_out()
        assert suspect.given == [[0]] and other.given == [[1], [2]]
    run.ready[suspect].clear()
    run._hand_out()
    assert suspect.given == [[0], [3], [4]]


def test_a_job_is_done_again_once_its_worker_has_nothing_else(run, actors):
    run._hand_out()
    first, second = actors
    run.again.append(workers._Call(None, [0]))
    run.ready[first].pop()
    run._hand_out()
    assert first.given == [[1], [2]]
    run.ready[second].clear()
    run._hand_out()
    assert second.given == [[3], [4], [0]]
