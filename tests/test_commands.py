import pytest

from segstrat.commands import tracked


def test_a_progress_bar_changes_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked(iter("abc"), 3, "letters", True)) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert "letters" in captured.err
    assert captured.out == ""
    assert list(tracked(iter("abc"), 3, "letters", False)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
