import os

import pytest
import torch

from segstrat.machine import COMPILE_STEPS, Machine, fastest_precision


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


def test_a_deterministic_trial_leaves_the_next_one_in_its_process_as_it_wants_to_be(
    monkeypatch, torch_settings
):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    Machine(deterministic=True).apply()
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8", "cuBLAS raises without it"
    Machine().apply()
    assert not torch.are_deterministic_algorithms_enabled()


def test_only_long_trials_on_gpus_are_compiled_by_default():
    assert Machine(device="cuda", precision="float32").compiles(COMPILE_STEPS)
    assert not Machine(device="cuda", precision="float32").compiles(COMPILE_STEPS - 1)
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
