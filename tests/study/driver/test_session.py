"""Signals are remembered until the study asks; a second one ends it at once."""

import os
import signal

import pytest

from study.driver import session
from study.driver.session import StudyInterruptedError, interrupts
from study.run import main


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


@pytest.mark.parametrize(
    ("begun", "words"),
    [(False, "no trial had started"), (True, "continue with: uv run python study/run.py --resume")],
)
def test_an_interrupt_outside_of_the_trials_names_the_study(tmp_path, monkeypatch, capsys, begun, words):
    def interrupted(opened, *_):
        if begun:
            opened.study.write("manifest.json", b"{}")
        raise KeyboardInterrupt

    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(session, "_prepare_and_run", interrupted)
    assert main(["--space", "wd_grid", "--name", "mine", "--storage", str(tmp_path)]) == 130
    output = capsys.readouterr().out
    assert f"Interrupted; {words}" in output
    assert ("--name mine" in output) == begun
