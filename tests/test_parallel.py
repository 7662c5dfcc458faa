"""The threaded map: in order, few ahead, errors where they belong."""

import itertools
import os
import threading
from collections.abc import Iterator

import pytest

from segstrat.parallel import cpu_cores, parallel_map


def test_results_come_in_order_whatever_finishes_first() -> None:
    second_is_done = threading.Event()

    def second_first(number: int) -> int:
        if number == 0:
            assert second_is_done.wait(30)
        if number == 1:
            second_is_done.set()
        return number * number

    assert list(parallel_map(second_first, range(20), threads=4)) == [n * n for n in range(20)]


def test_no_more_than_a_few_items_are_taken_ahead() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield number

    results = parallel_map(lambda number: number, endless(), threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert taken <= 3 + 8
    results.close()


def test_an_error_is_raised_in_its_turn_and_stops_the_rest() -> None:
    done: list[int] = []
    lock = threading.Lock()

    def fail_at_five(number: int) -> int:
        if number == 5:
            raise ValueError("five")
        with lock:
            done.append(number)
        return number

    results = parallel_map(fail_at_five, range(1000), threads=2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)
    assert len(done) < 50


def test_ahead_bounds_what_is_started_before_its_result_is_asked_for() -> None:
    started: list[int] = []

    def record(number: int) -> int:
        started.append(number)
        return number

    results = parallel_map(record, range(100), threads=2, ahead=3)
    for number in range(10):
        assert next(results) == number
        assert len(started) <= number + 1 + 3
    results.close()


def test_closing_ends_the_threads_and_starts_nothing_more() -> None:
    before = threading.active_count()
    started: list[int] = []
    results = parallel_map(started.append, range(1000), threads=3, ahead=6)
    next(results)
    results.close()
    assert threading.active_count() == before
    assert len(started) <= 7


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert cpu_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cpu_cores() == 64, "where the system does not tell"
