"""The benchmarks run at tiny size, and their arithmetic is right; nothing here is timed."""

import importlib.util
import json
import multiprocessing
import re

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.on_gpu.packed import join_all
from benchmarks.peers import UnavailableError, peer
from benchmarks.roofline import Limits, Roof
from benchmarks.table import verdict
from benchmarks.timing import Claim, Comparison, compare

HAVE_PEERS = all(importlib.util.find_spec(name) for name in ("albumentations", "kornia", "torchmetrics"))


def test_ratios_are_taken_within_rounds():
    # The second round is ten times slower for both. The ratio of the medians would be 1.5.
    comparison = Comparison("t", {"a": [1.0, 10.0, 2.0], "b": [3.0, 30.0, 2.0]}, "unit", "a")
    assert comparison.ratio("a", "b") == (3.0, 2.0, 3.0)
    assert comparison.ratio("b", "a")[0] == pytest.approx(1 / 3)
    assert comparison.median("a") == 2.0


def test_one_round_has_no_spread():
    assert Comparison("t", {"a": [2.0], "b": [4.0]}, "unit", "a").ratio("a", "b") == (2.0, 2.0, 2.0)


def test_every_contestant_runs_once_per_round_in_varying_order():
    calls = []
    names = ["a", "b", "c"]
    ticks = iter(range(1000))
    comparison = compare(
        "t",
        {name: (lambda name=name: calls.append(name)) for name in names},
        unit="call",
        units_per_call=2,
        reference="a",
        rounds=6,
        clock=lambda: float(next(ticks)),
    )
    rounds = [tuple(calls[start : start + 3]) for start in range(0, len(calls), 3)]
    assert len(rounds) == 7
    assert all(sorted(each) == names for each in rounds)
    assert len(set(rounds)) > 1
    assert comparison.seconds == {name: [0.5] * 6 for name in names}


def test_verdicts_say_what_was_missed():
    comparison = Comparison("t", {"a": [1.0], "b": [3.0]}, "unit", "a")
    assert verdict(comparison, Claim("a", "b", 2)).endswith("3.00×, goal 2×: met")
    assert verdict(comparison, Claim("a", "b", 4)).endswith("3.00×, goal 4×: missed")


def test_the_roof_is_the_longer_of_moving_and_computing():
    left, right = torch.ones(8, 16), torch.ones(16, 4)
    moved = 4 * (8 * 16 + 16 * 4 + 8 * 4)
    with Roof(Limits(1.0, {torch.float32: 1e9})) as slow_memory:
        left @ right
    assert (slow_memory.bytes, slow_memory.flops) == (moved, 2 * 8 * 16 * 4)
    assert slow_memory.seconds == moved
    with Roof(Limits(1e9, {torch.float32: 1.0})) as slow_units:
        left @ right
    assert slow_units.seconds == 2 * 8 * 16 * 4


def test_the_roof_ignores_views_and_counts_backward():
    weight = torch.ones(3, 2, 1, 1, requires_grad=True)
    images = torch.ones(1, 2, 4, 4)
    with Roof(Limits(1e9, {torch.float32: 1e9})) as views:
        images.view(2, 16).t()[:1]
    assert views.bytes == 0
    with Roof(Limits(1e9, {torch.float32: 1e9})) as both:
        torch.nn.functional.conv2d(images, weight).sum().backward()
    assert both.flops == 2 * (2 * 3 * 2 * 16)


def test_a_missing_peer_is_named():
    with pytest.raises(UnavailableError, match="no_such_peer is not installed"):
        peer("no_such_peer")


def test_an_unknown_benchmark_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["metrics"])
    assert stop.value.code == 2
    assert "metric" in capsys.readouterr().err


def run_quick(tmp_path, *names):
    path = tmp_path / "result.json"
    assert main(["--quick", "--json", str(path), *names]) == 0
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", ["input", "metric"])
def test_quick_runs_of_input_and_metric(tmp_path, name):
    record = run_quick(tmp_path, name)
    assert record["quick"]
    assert record["machine"]["versions"]["torch"]
    (comparison,) = record["results"][name]
    assert all(len(times) == 1 and times[0] > 0 for times in comparison["seconds"].values())
    if HAVE_PEERS:
        assert all(claim["ratio"] > 0 for claim in comparison["claims"])
        assert comparison["claims"]


def test_quick_run_of_the_epoch(tmp_path):
    (comparison,) = run_quick(tmp_path, "epoch")["results"]["epoch"]
    assert {"torchvision's recipe", "segstrat"} <= comparison["seconds"].keys()


def wait_for_both(barrier) -> None:
    barrier.wait()


def fail(barrier) -> None:
    raise SystemExit(3)


def test_a_packed_trial_that_dies_ends_the_others_that_wait_for_it():
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    workers = [context.Process(target=target, args=(barrier,)) for target in (wait_for_both, fail)]
    for worker in workers:
        worker.start()
    with pytest.raises(RuntimeError, match="ended with exit code 3"):
        join_all(workers)
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says so only without a GPU")
def test_without_a_gpu_the_script_says_so(tmp_path, capsys):
    assert run_quick(tmp_path, "gpu")["results"] == {}
    assert "no CUDA GPU here" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(BENCHMARKS) - {"gpu", "input", "metric", "epoch"}))
def test_quick_runs_of_the_others(tmp_path, name):
    assert run_quick(tmp_path, name)["results"][name]


def test_a_usual_pipeline_trains_for_its_time_and_is_scored(tmp_path, capsys):
    """The U-Net of a peer library, on eight images."""
    pytest.importorskip("segmentation_models_pytorch", reason="no peer (uv sync --group peers)")
    from benchmarks.pipelines import main as run_pipeline

    rng = np.random.default_rng(0)
    for name in [f"train{index}" for index in range(8)] + ["val0", "val1"]:
        for folder, shape in (("images", (100, 120, 3)), ("labels", (100, 120))):
            (tmp_path / folder).mkdir(exist_ok=True)
            high = 255 if folder == "images" else 3
            image = rng.integers(0, high, shape, dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / folder / f"{name}.png")
    for split, count in (("train", 8), ("val", 2)):
        (tmp_path / f"{split}.txt").write_text("".join(f"{split}{index}\n" for index in range(count)))
    (tmp_path / "dataset.toml").write_text(
        'name = "noise"\nimages = "images"\n[splits]\ntrain = "train.txt"\nval = "val.txt"\n'
        '[tasks.semseg]\nlabels = "labels"\nclasses = ["background", "red", "blue"]\n'
    )
    run_pipeline(["--data-root", str(tmp_path), "--seconds", "1", "--seeds", "0"])
    found = re.fullmatch(r"seed 0: \d+ epochs, validation mIoU (0\.\d{4})\n", capsys.readouterr().out)
    assert found
    assert 0 <= float(found[1]) < 0.6
