import pytest
import torch

from segstrat.machine import Machine, fastest_precision


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
