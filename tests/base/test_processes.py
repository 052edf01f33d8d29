"""Work in processes: those that die, that do not start, whose parent is interrupted or killed."""

import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures.process import BrokenProcessPool

import pytest

from artclf.base import processes
from artclf.base.errors import StepError
from artclf.base.processes import check_result, map_in_processes, process_pool, size_of_jobs


def results_of(function, jobs, **options) -> dict:
    chunks = list(map_in_processes(function, jobs, **options))
    pairs = [pair for chunk in chunks for pair in chunk]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def square_or_die(job: int) -> int:
    if job in (7, 11, 12):
        os._exit(1)
    return job * job


def test_a_job_that_kills_its_process_has_no_result_and_all_others_have_theirs():
    expected = {i: None if i in (7, 11, 12) else i * i for i in range(20)}
    assert results_of(square_or_die, range(20), workers=2, chunk_size=4) == expected


def test_results_come_in_lists_of_at_most_the_chunk_size():
    chunks = list(map_in_processes(abs, iter(range(10)), workers=1, chunk_size=4))
    assert sorted(map(len, chunks)) == [2, 4, 4]
    assert list(map_in_processes(abs, [], workers=1)) == []


def test_a_pool_that_breaks_between_two_results_loses_no_job(monkeypatch):
    pools = []

    class Breaking:
        """A pool whose processes die after two chunks, unnoticed until the next is submitted."""

        def __init__(self, workers, initializer):
            self.real = process_pool(workers, initializer)
            self.submitted = 0
            pools.append(self)

        def submit(self, function, *args):
            self.submitted += 1
            if len(pools) == 1 and self.submitted > 2:
                raise BrokenProcessPool("a process died")
            return self.real.submit(function, *args)

        def shutdown(self, **options):
            self.real.shutdown(**options)

    monkeypatch.setattr(processes, "process_pool", Breaking)
    jobs = range(-12, 0)
    assert results_of(abs, jobs, workers=1, chunk_size=2) == {i: -i for i in jobs}
    assert len(pools) > 1
    for pool in pools:
        pool.shutdown()


def test_a_bug_in_a_job_is_shown():
    with pytest.raises(TypeError):
        list(map_in_processes(abs, ["text"], workers=1))


def turn_warnings_into_errors():
    warnings.simplefilter("error")


def warn(job: int) -> bool:
    try:
        warnings.warn("seen", stacklevel=1)
    except UserWarning:
        return True
    return False


def test_the_initializer_is_called_in_every_process():
    options = {"workers": 2, "chunk_size": 1, "initializer": turn_warnings_into_errors}
    assert results_of(warn, range(6), **options) == dict.fromkeys(range(6), True)


def warn_or_die(job: int) -> bool:
    if job == 0:
        os._exit(1)
    return warn(job)


def test_the_initializer_is_called_in_the_processes_that_take_over():
    options = {"workers": 1, "chunk_size": 3, "initializer": turn_warnings_into_errors}
    assert results_of(warn_or_die, range(3), **options) == {0: None, 1: True, 2: True}


def run_script(folder, text: str, **options) -> subprocess.Popen:
    (folder / "script.py").write_text(text)
    command = [sys.executable, folder / "script.py"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


UNGUARDED = """
from artclf.base.processes import map_in_processes
print(list(map_in_processes(abs, [-1], workers=1)))
"""


def test_a_script_without_a_main_guard_is_an_error_that_says_what_to_do(tmp_path):
    script = run_script(tmp_path, UNGUARDED, stderr=subprocess.PIPE)
    output, errors = script.communicate()
    assert script.returncode and output == ""
    last = errors.splitlines()[-1]
    assert last.startswith("artclf.base.errors.StepError: no process starts")
    assert "if __name__ == '__main__':" in last


SLEEPING = """
import os, time
from artclf.base.processes import map_in_processes

def report_and_sleep(seconds):
    print(os.getpid(), flush=True)
    time.sleep(seconds)

if __name__ == "__main__":
    try:
        list(map_in_processes(report_and_sleep, [{seconds}] * 2, workers=2, chunk_size=1))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def two_workers(script: subprocess.Popen) -> list[int]:
    return [int(script.stdout.readline()) for _ in range(2)]


@pytest.mark.skipif(os.name == "nt", reason="sends signals as Linux and macOS know them")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = run_script(tmp_path, SLEEPING.format(seconds=600))
    two_workers(script)
    script.kill()
    started = time.perf_counter()
    assert script.stdout.read() == ""  # ends when the last process that holds it has gone
    assert time.perf_counter() - started < 60
    script.wait()


@pytest.mark.skipif(os.name == "nt", reason="sends signals as Linux and macOS know them")
def test_interrupted_workers_finish_what_they_do_and_their_parent_ends(tmp_path):
    script = run_script(
        tmp_path, SLEEPING.format(seconds=5), stderr=subprocess.PIPE, start_new_session=True
    )
    two_workers(script)
    os.killpg(script.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    output, errors = script.communicate(timeout=60)
    assert (output, errors, script.returncode) == ("interrupted\n", "", 0)


def test_few_pictures_make_small_jobs_so_that_no_worker_is_idle():
    sizes = [size_of_jobs(number, least=16, most=128) for number in (0, 300, 3200, 10**7)]
    assert sizes == [16, 16, 50, 128]


def test_a_job_without_a_result_is_an_error_that_says_what_workers_did():
    assert check_result(0, "count") == 0
    with pytest.raises(StepError, match="workers end when they count: give them more memory"):
        check_result(None, "count")
