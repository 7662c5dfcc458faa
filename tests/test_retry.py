"""Storage that does not answer is tried again, for a bounded time that is said."""

import pytest

from segstrat.retry import FIRST_SECONDS, LONGEST_PAUSE, PATIENCE_SECONDS, Patience, is_transient

STALLED = OSError("When reading: AWS Error NETWORK_CONNECTION: curlCode: 28, Timeout was reached")
DENIED = OSError("AWS Error ACCESS_DENIED during PutObject operation")


class Storage:
    """Answers, except between two moments of a clock of its own."""

    def __init__(self, error: OSError, *, down_from: float, down_until: float) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.calls = 0
        self._error, self._down = error, (down_from, down_until)
        clock = lambda: self.now  # noqa: E731
        self.patience = Patience("s3://bucket", say=self.said.append, sleep=self.sleep, clock=clock)

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= LONGEST_PAUSE
        self.now += seconds

    def read(self) -> str:
        def operation() -> str:
            self.calls += 1
            if self._down[0] <= self.now < self._down[1]:
                raise self._error
            return "content"

        return self.patience.call(operation)


def test_twenty_seconds_without_an_answer_cost_nothing_and_are_told():
    storage = Storage(STALLED, down_from=5, down_until=25)
    assert storage.read() == "content"
    storage.now = 5
    assert storage.read() == "content"
    assert len(storage.said) == 2
    assert f"trying again for up to {PATIENCE_SECONDS:.0f} s" in storage.said[0]
    assert "answers again after" in storage.said[1]
    assert 25 <= storage.now < 25 + LONGEST_PAUSE


def test_the_wait_is_bounded():
    storage = Storage(STALLED, down_from=5, down_until=1e9)
    storage.read()
    storage.now = 5
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        storage.read()
    assert storage.now - 5 < PATIENCE_SECONDS + LONGEST_PAUSE
    assert len(storage.said) == 1


def test_storage_that_never_answered_gets_less_time():
    storage = Storage(STALLED, down_from=0, down_until=1e9)
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        storage.read()
    assert storage.now < FIRST_SECONDS + LONGEST_PAUSE


@pytest.mark.parametrize("error", [DENIED, FileNotFoundError("no such file"), OSError(28, "No space")])
def test_errors_that_do_not_pass_are_raised_at_once(error):
    storage = Storage(error, down_from=0, down_until=1e9)
    with pytest.raises(OSError, match=str(error)[:5].replace("[", r"\[")):
        storage.read()
    assert storage.calls == 1
    assert storage.said == []
    assert not is_transient(error)
