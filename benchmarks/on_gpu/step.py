"""Training steps on a batch that is on the device already, against the roof of the eager one."""

import time
from collections.abc import Callable

import torch

from benchmarks.on_gpu.setting import Row, Rows, Setting, release
from benchmarks.recipe import PlainFCN, plain_optimizer, train_plainly
from benchmarks.roofline import Limits, Roof, measure_limits, synchronize
from benchmarks.step import OneBatch, trial_step
from benchmarks.timing import Contestant
from segstrat.data.loading.batch import normalize
from segstrat.machine import Machine

KERNELS = 10


def fcn_rows(setting: Setting) -> Rows:
    """FCN-32s-ResNet-18: the usual loop, then each of segstrat's choices on top of the one before."""
    device = setting.torch_device
    limits = measure_limits(device, quick=setting.tiny)
    yield from _limit_rows(limits)
    machines = {
        "float32": setting.machine(precision="float32"),
        "fastest precision": setting.machine(),
        "compiled": setting.machine(compile=True),
        "compiled, CUDA graphs": setting.machine(compile=True),
    }
    one_step = trial_step(_loader(setting, 1), machines["fastest precision"])
    one_step()
    with Roof(limits) as roof:
        one_step()
    work = f"{roof.flops / 1e12:.3g} Tflop, {roof.bytes / 1e9:.3g} GB"
    precision = machines["fastest precision"].precision
    yield Row(name=f"roof of the {precision} step", value=roof.seconds * 1e3, unit="ms", note=work)
    loader = _loader(setting, setting.repeats * 4)
    plain = _timed("eager float32 NCHW", lambda: _plain_steps(loader, setting.device), setting, roof.seconds)
    yield plain[0]
    for name, machine in machines.items():
        row, steps = _timed(
            f"segstrat, {name}",
            lambda machine=machine, name=name: _steps(loader, machine, "fcn32s", graphs="graphs" in name),
            setting,
            roof.seconds,
        )
        yield row
        if name in ("fastest precision", "compiled, CUDA graphs"):
            yield from _kernel_rows(name, steps, loader.repeats, device)


def sunet_rows(setting: Setting) -> Rows:
    """SUNet-64: eager and as CUDA graphs."""
    loader = _loader(setting, setting.repeats)
    for name, machine in {
        "segstrat": setting.machine(),
        "segstrat, compiled, CUDA graphs": setting.machine(compile=True),
    }.items():
        yield _timed(
            name,
            lambda machine=machine: _steps(loader, machine, "sunet64", graphs=True),
            setting,
        )[0]


def _loader(setting: Setting, repeats: int) -> OneBatch:
    return OneBatch(setting.batch_size, setting.crop_size, setting.device, repeats)


def _limit_rows(limits: Limits) -> Rows:
    yield Row(name="copy bandwidth", value=limits.bytes_per_second / 1e9, unit="GB/s")
    for dtype, rate in limits.flops_per_second.items():
        yield Row(name=f"matrix product, {str(dtype)[6:]}", value=rate / 1e12, unit="Tflop/s")


def _steps(loader: OneBatch, machine: Machine, model: str, *, graphs: bool) -> Contestant:
    machine.apply()
    return trial_step(loader, machine, model, cuda_graphs=graphs and machine.torch_device.type == "cuda")


def _plain_steps(loader: OneBatch, device: str) -> Contestant:
    """Steps of the plain loop, on images that are normalized already."""
    torch.manual_seed(0)
    model = PlainFCN().to(device)
    optimizer = plain_optimizer(model)
    images = normalize(loader.batch.images).contiguous()
    batches = [(images, loader.batch.labels["semseg"])] * loader.repeats
    return lambda: train_plainly(model, optimizer, batches, device)


def _timed(
    name: str, make: Callable[[], Contestant], setting: Setting, roof: float | None = None
) -> tuple[Row, Contestant]:
    """Milliseconds per step, and how long the host takes to queue one."""
    device = setting.torch_device
    release(device)
    start = time.perf_counter()
    steps, repeats = make(), _repeats(setting, roof)
    # Graphs are recorded in the second step.
    steps()
    synchronize(device)
    first = time.perf_counter() - start
    walls, hosts = [], []
    for _ in range(setting.repeats):
        start = time.perf_counter()
        steps()
        hosts.append((time.perf_counter() - start) / repeats)
        synchronize(device)
        walls.append((time.perf_counter() - start) / repeats)
    wall, host = min(walls), min(hosts)
    rate = f"{setting.batch_size / wall:.0f} images/s"
    note = f"{rate}; host {host * 1e3:.2f} ms; start and first call {first:.0f} s"
    if roof is not None:
        note = f"{wall / roof:.2f} × roof; {note}"
    return Row(name=name, value=wall * 1e3, unit="ms", note=note), steps


def _repeats(setting: Setting, roof: float | None) -> int:
    return setting.repeats * (4 if roof is not None else 1)


def _kernel_rows(name: str, steps: Contestant, repeats: int, device: torch.device) -> Rows:
    """Time in kernels per step, and the longest kernels: says what keeps a step from its roof."""
    on_cuda = device.type == "cuda"
    activity = torch.profiler.ProfilerActivity.CUDA if on_cuda else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profile:
        steps()
        synchronize(device)
    events = profile.key_averages()
    spent = {
        event.key: ((event.self_device_time_total if on_cuda else event.self_cpu_time_total), event.count)
        for event in events
    }
    if not spent:
        yield Row(name=f"kernels, {name}", value="not recorded", note="by the profiler")
        return
    total, launches = (sum(values) for values in zip(*spent.values(), strict=True))
    yield Row(
        name=f"kernels, {name}",
        value=total / repeats / 1e3,
        unit="ms",
        note=f"{launches / repeats:.0f} launches per step",
    )
    for key, (microseconds, count) in sorted(spent.items(), key=lambda item: -item[1][0])[:KERNELS]:
        yield Row(
            name=f"{name}: {key[:70]}",
            value=microseconds / repeats / 1e3,
            unit="ms",
            note=f"{count / repeats:.1f} ×",
        )
