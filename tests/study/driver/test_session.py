"""Signals are remembered until the study asks, and what ends or delays a study is said."""

import errno
import os
import signal

import pytest

from segstrat.errors import UserError
from segstrat.store import StorageError, Store
from study.driver import session
from study.driver.messages import awaited_words, hanging
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

    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(session, "_prepare_and_run", interrupted)
    assert main(["--space", "wd_grid", "--name", "mine", "--storage", str(tmp_path)]) == 130
    output = capsys.readouterr().out
    # On one line, to be copied.
    (line,) = output.splitlines()
    assert line.startswith(f"Interrupted; {words}")
    assert ("--name mine" in line) == begun


def test_a_full_disk_of_the_driver_is_one_sentence(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "manifest.json")

    monkeypatch.setattr(session, "_prepare_and_run", full)
    assert main(["--space", "wd_grid", "--name", "mine", "--storage", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert "free some space; a study that has begun continues with --resume" in error
    assert len(error.splitlines()) == 1


def test_a_study_says_whether_it_waits_for_the_cluster_or_for_its_workers():
    assert awaited_words(True, 0) == "waiting for free CPUs of the cluster"
    assert awaited_words(True, 0.5) == "waiting for free GPUs of the cluster"
    assert awaited_words(False, 0.5) == "workers are starting"


def test_a_worker_that_storage_refuses_ends_the_study_where_it_refuses_the_driver_too(tmp_path, monkeypatch):
    asked = []

    def expired(self):
        asked.append(self.uri)
        raise StorageError("the credentials have expired; renew them")

    monkeypatch.setattr(Store, "names", expired)
    session._check_storage(Store(tmp_path), "its process died (killed, out of memory, or its node was lost)")
    assert not asked
    with pytest.raises(UserError, match="have expired"):
        session._check_storage(Store(tmp_path), "StorageError: the credentials have expired; renew them")
    assert asked == [str(tmp_path)]


def test_a_long_line_of_the_header_goes_on_below_its_words():
    line = "stages    screening, then reference and candidates on fresh seeds"
    assert hanging(line, 40) == (
        "stages    screening, then reference and\n          candidates on fresh seeds"
    )
    assert (
        hanging("          about 18 on fresh seeds follow", 80) == "          about 18 on fresh seeds follow"
    )
    uri = f"results   /data/{'long folder/' * 20}study-of-one"
    assert hanging(uri, 40) == uri
    assert (
        hanging("photos: Does weight decay close the gap?", 20) == "photos: Does weight\ndecay close the gap?"
    )
