"""Device memory: whether it grows from epoch to epoch, and what a trial takes of what the probe predicts."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.on_gpu.setting import Row, Rows, Setting, peak_mib, reserved_mib, used_mib
from segstrat.step_cost import Footprint, measure_footprint
from segstrat.train import train

EPOCHS = 20
SETTLED = 3
MODELS = {
    "fcn32s": {"model": "fcn32s"},
    "fcn8s vgg16": {"model": "fcn8s", "backbone": "vgg16"},
    "sunet64": {"model": "sunet64"},
}


def growth_rows(setting: Setting) -> Rows:
    """Memory of torch's allocator over 20 epochs with validation; it should not grow once it has settled."""
    epochs = SETTLED + 2 if setting.tiny else EPOCHS
    config = setting.config(epochs=epochs, validate_every=SETTLED - 1)
    kinds: dict[str, dict[str, Any]] = {
        "host loader": {},
        "device cache, compiled": {"compile": True, "device_cache": True},
    }
    for name, fields in kinds.items():
        machine, data = setting.machine(**fields), setting.data(fewer=True)
        reserved = [reserved_mib(setting.torch_device) for _ in train(config, machine=machine, protocol=data)]
        yield Row(
            name=name,
            # The last epoch also counts the pixels of single images, which takes memory of its own.
            value=reserved[-2] - reserved[SETTLED - 1],
            unit="MiB",
            note=f"growth from epoch {SETTLED} to {epochs - 1}; reserved after each: "
            + ", ".join(f"{size:.0f}" for size in reserved),
        )


def probe_rows(setting: Setting) -> Rows:
    """What `--gpus-per-trial auto` predicts of a model, and what trials of it take; a process for each."""
    context = multiprocessing.get_context("spawn")
    for name, fields in MODELS.items():
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            predicted = pool.submit(_predicted, setting, fields).result()
        yield Row(
            name=f"{name}, predicted",
            value=predicted.memory_gib,
            unit="GiB",
            note=f"busy {predicted.busy:.0%} of a step",
        )
        for compiled in (False, True) if name == "fcn32s" else (False,):
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                peak, used = pool.submit(_real, setting, fields, compiled=compiled).result()
            yield Row(
                name=f"{name}, a trial{', compiled' * compiled}",
                value=used / 1024,
                unit="GiB",
                note="of the device in use by all processes, CUDA's own memory included; torch's allocator "
                f"at most {peak / 1024:.2f} GiB",
            )


def _predicted(setting: Setting, fields: dict[str, Any]) -> Footprint:
    config, tasks = setting.config(**fields), setting.data().tasks
    return measure_footprint(config, tasks, device=setting.device, precision=setting.machine().precision)


def _real(setting: Setting, fields: dict[str, Any], *, compiled: bool) -> tuple[float, float]:
    config, machine = setting.config(epochs=2, **fields), setting.machine(compile=compiled)
    for _ in train(config, machine=machine, protocol=setting.data(fewer=True)):
        pass
    device = setting.torch_device
    return peak_mib(device), used_mib(device)
