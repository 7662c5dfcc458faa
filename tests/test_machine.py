import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from segstrat import machine
from segstrat.machine import COMPILE_STEPS, CONTEXT_GIB, Machine, fastest_precision


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"architecture": "aarch64", "bf16": True}, "bfloat16"),
        ({}, "float32"),
    ],
)
def test_a_processor_gets_bfloat16_where_it_has_units_for_it(monkeypatch, flags, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    assert fastest_precision(torch.device("cpu")) == expected


def test_auto_is_resolved_when_the_machine_is_described(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert Machine(precision="auto").precision == "bfloat16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {})
    assert Machine(precision="auto").precision == "float32"
    assert Machine(precision="bfloat16").precision == "bfloat16"


def test_a_device_without_known_units_gets_float32():
    assert fastest_precision(torch.device("meta")) == "float32"


@pytest.fixture
def torch_settings():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_a_deterministic_trial_leaves_the_next_one_in_its_process_as_it_wants_to_be(torch_settings):
    Machine(deterministic=True).apply()
    assert torch.are_deterministic_algorithms_enabled()
    Machine().apply()
    assert not torch.are_deterministic_algorithms_enabled()


def test_cublas_has_a_fixed_workspace_before_its_first_use():
    """Torch reads the variable once: set by the second trial of a process, it would be too late."""
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8"), "torch accepts no other"


class Gpu:
    """A GPU of 80 GiB, as far as `Machine.apply` asks it."""

    def __init__(self, monkeypatch) -> None:
        self.calls: list[str] = []
        self.fraction = 0.0
        size = SimpleNamespace(total_memory=80 * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: size)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", self.limit)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: self.calls.append("empty cache"))
        monkeypatch.setattr(torch.compiler, "reset", lambda: self.calls.append("reset compiler"))

    def limit(self, fraction: float, device: torch.device) -> None:
        assert device == torch.device("cuda", 0)
        self.fraction = fraction


def test_the_memory_of_the_trial_before_is_given_back_with_its_graphs(monkeypatch):
    """CUDA graphs hold their memory, so they must go before the allocator's cache is emptied."""
    gpu = Gpu(monkeypatch)
    Machine(device="cuda", precision="float32").apply()
    assert gpu.calls == ["reset compiler", "empty cache"]
    assert gpu.fraction == 1.0


def test_processes_that_share_a_gpu_fit_into_it_with_what_cuda_takes(monkeypatch):
    gpu = Gpu(monkeypatch)
    Machine(device="cuda", precision="float32", memory_fraction=0.25).apply()
    assert 4 * (gpu.fraction * 80 + CONTEXT_GIB) == pytest.approx(80)


@pytest.mark.parametrize(
    ("environment", "found", "able"),
    [({}, None, False), ({}, "/usr/bin/gcc", True), ({"CC": "/opt/cc"}, None, True)],
)
def test_without_a_c_compiler_nothing_is_compiled_by_default(monkeypatch, tmp_path, environment, found, able):
    """Triton would fail at the first step of every trial."""
    monkeypatch.delenv("CC", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(machine.shutil, "which", lambda _: found)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(machine.sysconfig, "get_path", lambda _: str(tmp_path))
    assert Machine(device="cuda", precision="float32").compiles(COMPILE_STEPS) == able
    assert Machine(device="cuda", precision="float32", compile=True).compiles(COMPILE_STEPS)
    (tmp_path / "Python.h").unlink()
    assert not Machine(device="cuda", precision="float32").compiles(COMPILE_STEPS)


def test_only_long_trials_on_gpus_are_compiled_by_default(monkeypatch):
    monkeypatch.setattr(machine, "has_c_compiler", lambda: True)
    assert Machine(device="cuda", precision="float32").compiles(COMPILE_STEPS)
    assert not Machine(device="cuda", precision="float32").compiles(COMPILE_STEPS - 1)
    assert not Machine(device="cuda", precision="float32").compiles(COMPILE_STEPS, processes=2)
    assert not Machine().compiles(10**6)
    assert Machine(compile=True).compiles(1)
    assert not Machine(device="cuda", precision="float32", compile=False).compiles(10**6)


@pytest.mark.gpu
def test_a_process_keeps_to_its_share_of_the_gpu():
    """A trial that needs more than its share runs out of memory itself, not its neighbours."""
    total = torch.cuda.get_device_properties(0).total_memory
    Machine(device="cuda", memory_fraction=0.1).apply()
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(total // 5, dtype=torch.uint8, device="cuda")
        held = torch.empty(total // 20, dtype=torch.uint8, device="cuda")
        del held
        assert torch.cuda.memory_reserved() >= total // 20
        Machine(device="cuda").apply()
        assert torch.cuda.memory_reserved() < total // 20, "the cache of the trial before is given back"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.gpu
def test_a_gpu_gets_bfloat16_where_it_has_units_for_it():
    """Shows that units are asked for, and not torch's emulation on older cards."""
    expected = "bfloat16" if torch.cuda.get_device_capability() >= (8, 0) else "float32"
    assert fastest_precision(torch.device("cuda")) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults of glibc's allocator")
def test_freed_memory_is_used_again_instead_of_being_asked_for_at_every_step():
    """20 times three blocks of 16 MiB: by default 20 × 3 × 4096 new pages."""
    script = """
import resource, torch
from segstrat.machine import Machine
Machine().apply()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step = lambda: [torch.empty(1 << 22).fill_(1) for _ in range(3)]
step()
before = faults()
for _ in range(20):
    step()
print(faults() - before)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 20_000
