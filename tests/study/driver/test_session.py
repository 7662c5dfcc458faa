"""Signals are remembered until the study asks; a second one ends it at once."""

import os
import signal

import pytest

from study.driver.session import StudyInterruptedError, interrupts


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_and_the_second_does_not(signum):
    before = signal.getsignal(signum)
    with interrupts() as check:
        check()
        os.kill(os.getpid(), signum)
        with pytest.raises(StudyInterruptedError) as caught:
            check()
        assert caught.value.signum == signum
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signum)
    assert signal.getsignal(signum) is before
