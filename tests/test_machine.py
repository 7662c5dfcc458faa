import pytest
import torch

from segstrat.machine import fastest_precision


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


def test_a_device_without_known_units_gets_float32():
    assert fastest_precision(torch.device("meta")) == "float32"
