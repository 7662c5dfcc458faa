"""A comment does not refuse a resume; a change of training does."""

import pytest

from study.state.manifest import code_digest

SOURCE = '''"""Schedules."""


def rate(step: int, steps: int) -> float:
    """The learning rate."""
    return 0.1 * (1 - step / steps)
'''


@pytest.fixture
def digest_of(tmp_path):
    def digest(source: str, name: str = "schedules.py") -> str:
        for path in tmp_path.iterdir():
            path.unlink()
        (tmp_path / name).write_text(source)
        return code_digest(tmp_path)

    return digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def rate", "# falls to zero\ndef rate"),
        ('"""Schedules."""', '"""What the learning rate does."""'),
        ('    """The learning rate."""\n', ""),
        ("0.1 * (1 - step / steps)", "0.1 * (\n        1 - step / steps\n    )"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(digest_of, old, new):
    assert old in SOURCE
    assert digest_of(SOURCE.replace(old, new)) == digest_of(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.1", "0.2"),
        ("1 - step", "1 + step"),
        ("steps)", "steps) ** 2"),
        ("def rate", "import random\n\n\ndef rate"),
    ],
)
def test_code_counts(digest_of, old, new):
    assert digest_of(SOURCE.replace(old, new, 1)) != digest_of(SOURCE)


def test_names_of_files_count_and_what_is_no_python_counts_as_it_is(digest_of):
    assert digest_of(SOURCE, "other.py") != digest_of(SOURCE)
    assert digest_of("def") != digest_of("def  ")
