#!/usr/bin/env bash
# pytest 9.2.0, pytest-xdist 3.8.0: `--dist loadgroup` groups nothing, without a word.
#
# Two files of four tests, all marked with one group, on two workers.
# Expected: all tests of a group run in one worker, as the documentation of xdist says.
# Seen:     they are spread over both, so that fixtures of a module or session are built twice. xdist appends the group to
#           an attribute of the test that pytest 9.2 does not read any more; with pytest 9.0.2 the group stays together.
# Here:     the tests run with `--dist loadfile`, which needs only the name of the file.
#
# Installs the pinned packages into a temporary folder, and ends with 1 once the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for name in one two; do
    cat > "test_$name.py" <<'PY'
import time

import pytest


@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", range(4))
def test(number):
    time.sleep(0.2)
PY
done
workers_of() {
    uv venv -q --clear --python 3.11 venv
    uv pip install -q --python venv/bin/python "pytest==$1" pytest-xdist==3.8.0
    venv/bin/python -m pytest -v -n 2 --dist loadgroup -p no:cacheprovider 2>&1 | grep -o '^\[gw[01]\]' | sort -u | wc -l
}
newer=$(workers_of 9.2.0)
older=$(workers_of 9.0.2)
echo "workers that ran the eight tests of one group: $newer with pytest 9.2.0, $older with pytest 9.0.2"
if [[ $newer == 2 && $older == 1 ]]; then echo "as described"; else echo "no longer as described"; exit 1; fi
