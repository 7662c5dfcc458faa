#!/usr/bin/env bash
# torchvision 0.29.2, torch 2.15.0: importing torchvision imports torch's compiler, and the process ends later.
#
# A process that imports torch, and one that imports torchvision.models: seconds of the import, whether torch._dynamo is loaded,
# and seconds from the last statement to the end of the process.
# Expected: a library of layers and models loads no compiler; torch itself loads it when something is compiled.
# Seen:     torchvision/ops/roi_align.py imports torch._dynamo.utils, which brings torch._inductor, sympy and triton. The import
#           takes nearly twice as long as torch's, and Python takes another half to one second to take the modules apart at the end.
# Here:     study/on_ray/runtime.py: `end_process` leaves the modules to the system: a study's command ends three seconds earlier, torch's share included.
#
# Installs the pinned packages into a temporary folder (about 3 GB), and ends with 1 once the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv -q --python 3.11 "$work/venv"
uv pip install -q --compile-bytecode --python "$work/venv/bin/python" torch==2.15.0 torchvision==0.29.2 numpy
cat > "$work/watch.py" <<'PY'
import subprocess
import sys
import time

CODE = """
import sys, time
start = time.perf_counter()
import {module}
print(time.perf_counter() - start, int("torch._dynamo" in sys.modules), time.time())
"""
loaded = {}
for module in ("torch", "torchvision.models") * 2:  # the second time from the file cache
    command = [sys.executable, "-W", "ignore", "-c", CODE.format(module=module)]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    ended = time.time() - float(words[2])
    loaded[module] = words[1] == "1"
    print(f"{module}: import {float(words[0]):.1f} s, torch._dynamo loaded: {loaded[module]}, end after {ended:.1f} s")
same = loaded == {"torch": False, "torchvision.models": True}
print("as described" if same else "no longer as described")
sys.exit(0 if same else 1)
PY
"$work/venv/bin/python" "$work/watch.py"
