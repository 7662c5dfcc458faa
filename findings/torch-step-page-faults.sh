#!/usr/bin/env bash
# torch 2.15.0, glibc: each training step of a small network on the CPU gets its memory from the system anew.
#
# Four convolutions on a batch of 8 × 96 × 96 pixels, one thread; minor page faults per step, after five steps of warming up,
# with glibc's defaults and with its two thresholds raised by environment variables.
# Expected: a step allocates the tensors of the step before again, so memory is reused and hardly any page is new.
# Seen:     1,800 to 23,000 new pages per step, from one run to the next; at most some hundreds with the thresholds raised. glibc
#           maps blocks above its threshold directly, and gives freed memory at the top of the heap back to the system.
# Here:     segstrat/machine.py raises both thresholds by `mallopt` for trials on the CPU: about a tenth of a step's processor time.
#
# Installs the pinned package into a temporary folder (about 3 GB), and ends with 1 once the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv -q --python 3.11 "$work/venv"
uv pip install -q --python "$work/venv/bin/python" torch==2.15.0 numpy
cat > "$work/step.py" <<'PY'
import resource
import time

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)


def layer(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


network = nn.Sequential(layer(3, 32), layer(32, 32), layer(32, 32), nn.Conv2d(32, 9, 1))
images, labels = torch.randn(8, 3, 96, 96), torch.randint(9, (8, 96, 96))
optimizer = torch.optim.SGD(network.parameters(), lr=0.01)


def train(steps):
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()


train(5)
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
train(20)
faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20
print(f"{faults:.0f} {50 * (time.process_time() - start):.0f}")
PY
python=$work/venv/bin/python
read -r defaults default_ms < <("$python" -W ignore "$work/step.py")
read -r raised raised_ms < <(MALLOC_TRIM_THRESHOLD_=2147483647 MALLOC_MMAP_THRESHOLD_=33554432 \
    "$python" -W ignore "$work/step.py")
echo "torch 2.15.0, $(ldd --version | head -1): new pages per step $defaults by default ($default_ms ms)," \
    "$raised with both thresholds raised ($raised_ms ms)"
if ((defaults >= 500 && raised * 5 <= defaults)); then echo "as described"; else echo "no longer as described"; exit 1; fi
