"""The files in deploy/ name what exists: gauges, flags, variables."""

import ast
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from study.cli import make_parser

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


# Fields of KubeRay's RayJobSpec, RayClusterSpec, HeadGroupSpec and WorkerGroupSpec that are used here (its
# Go types, apis/ray/v1). The operator drops a field that it does not know without a word.
JOB = {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"}
CLUSTER = {"enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"}
HEAD = {"rayStartParams", "template"}
WORKERS = HEAD | {"groupName", "replicas", "minReplicas", "maxReplicas"}


def gauge_names() -> set[str]:
    """First argument of every `Gauge(…)` in study/on_ray/prometheus.py, read without starting Ray."""
    tree = ast.parse((ROOT / "study" / "on_ray" / "prometheus.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id == "Gauge"
        and isinstance(call.args[0], ast.Constant)
    }


def test_the_grafana_dashboard_shows_every_gauge_and_no_other():
    dashboard = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
    queries = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    assert {f"ray_{name}" for name in gauge_names()} == set(re.findall(r"ray_\w+", queries))
    assert {variable["name"] for variable in dashboard["templating"]["list"]} >= set(
        re.findall(r"\$(\w+)", queries)
    )
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("name", ["rayjob.yaml", "slurm.sbatch"])
def test_recipes_use_flags_that_exist(name):
    known = {flag for action in make_parser()._actions for flag in action.option_strings}
    text = (DEPLOY / name).read_text(encoding="utf-8")
    commands = re.findall(r"study/run\.py (.*)", text) + re.findall(r"arguments=\"(.*)\"", text)
    assert commands
    used = {flag for command in commands for flag in re.findall(r"--[a-z-]+", command)}
    assert used
    assert used <= known


def test_the_slurm_script_is_sound_bash():
    checked = subprocess.run(["bash", "-n", str(DEPLOY / "slurm.sbatch")], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_every_step_of_the_slurm_script_gets_the_cores_of_the_job(tmp_path):
    """Slurm 22.05 to 23.02 gives a step one core unless the call of srun itself names the number."""
    calls = tmp_path / "calls"
    for name, body in {
        "srun": f'echo "$@" >> {calls}; echo 10.0.0.1',
        "scontrol": "echo node0; echo node1",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        **{
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_ID": "7",
        },
        **{"SLURM_JOB_NODELIST": "node[0-1]", "SLURM_CPUS_PER_TASK": "6"},
    }
    subprocess.run(["bash", str(DEPLOY / "slurm.sbatch")], env=environment, check=True, timeout=60)
    steps = calls.read_text().splitlines()
    # Of six; steps in the background may be ended before they have written.
    assert len(steps) >= 4
    assert all("--cpus-per-task 6 " in step for step in steps)


def test_the_rayjob_holds_one_head_and_its_workers():
    job = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert set(job["spec"]) == JOB
    assert set(cluster) == CLUSTER
    assert set(cluster["headGroupSpec"]) == HEAD
    assert set(workers) == WORKERS
    assert all(isinstance(value, str) for value in cluster["headGroupSpec"]["rayStartParams"].values())
    head, worker = (
        group["template"]["spec"]["containers"][0] for group in (cluster["headGroupSpec"], workers)
    )
    assert head["image"] == worker["image"], "Ray refuses nodes of another version"
    mounts = {mount["name"] for mount in worker["volumeMounts"]}
    assert mounts == {volume["name"] for volume in workers["template"]["spec"]["volumes"]}
