import importlib

import pytest

from segstrat.commands import tracked
from study.__main__ import COMMANDS, OF_DATA, main


def test_a_progress_bar_changes_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked(iter("abc"), 3, "letters", True)) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert "letters" in captured.err
    assert captured.out == ""
    assert list(tracked(iter("abc"), 3, "letters", False)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_every_command_is_there_and_gets_its_arguments(capsys, monkeypatch):
    given: list[list[str]] = []
    for words, table in (([], COMMANDS), (["data"], OF_DATA)):
        assert main(words) == 0
        usage = capsys.readouterr().out
        for name, (module, description) in table.items():
            assert f"{name:<10}{description}" in usage
            given = []
            monkeypatch.setattr(
                importlib.import_module(module), "main", lambda rest, given=given: given.append(rest)
            )
            main([*words, name, "--flag", "x"])
            assert given == [["--flag", "x"]]


@pytest.mark.parametrize(
    ("words", "near"), [(["rum"], "'run'"), (["dat"], "'data'"), (["data", "covert"], "'convert'")]
)
def test_an_unknown_command_is_answered_with_the_nearest(capsys, words, near):
    assert main(words) == 2
    assert f"did you mean {near}?" in capsys.readouterr().err
