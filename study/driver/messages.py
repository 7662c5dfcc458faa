"""What the console prints before, between and after a study's trials."""

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from segstrat.records import TrialStatus
from segstrat.store import Store
from study.analysis.answering.design import AnsweringDesign
from study.cli import Flags, StudySettings
from study.console.progress import resume_words
from study.console.tables import cells_table, problem_lines
from study.driver.prepare import OpenedStudy, stopping_words
from study.on_ray.runtime import Runtime
from study.planning.resources import Share
from study.search.base import Search
from study.search.two_stage import TwoStageSearch
from study.state.pretrainings import PretrainState
from study.state.trial_states import TrialStates, count_final

FILES = (
    ("report.html", "the answer, one self-contained page"),
    ("trials.parquet", "one row per trial (also .csv)"),
    ("epochs.parquet", "trial × epoch × split × task (also .csv)"),
    ("figures/", "SVG and PNG"),
)


def header_lines(
    opened: OpenedStudy, manifest: Mapping[str, Any], states: TrialStates, share: Share, search: Search
) -> list[str]:
    """The study's question, data and machine.

    Args:
        search: where further trials come from.
    """
    settings, data, hardware = opened.settings, manifest["data"], manifest["hardware"]
    kind = "synthetic scenes drawn by this project" if data["synthetic"] else "images"
    images = f"{data['train_images']} to train, {data['val_images']} to validate"
    gpus = f", {_counted(hardware['gpus'], 'GPU')}" if hardware["gpus"] else ", no GPU"
    per_trial = _counted(share.cpus, "core") + (f", {share.gpus:g} GPU" if share.gpus else "")
    trials = states.in_order()
    epochs = sum(state.trial.config.epochs for state in trials)
    more = search.remaining(trials)
    follow = more - search.screening_left(trials) if isinstance(search, TwoStageSearch) else 0
    # A search has not proposed all of them yet.
    planned = len(trials) + more - follow
    epochs = round(epochs * planned / len(trials))
    rehearsal = "rehearsal few settings, short training: it shows how a study runs, and finds nothing"
    lines = [
        f"{settings.name}: {opened.space.question}",
        *([rehearsal] if settings.quick else []),
        f"data      {data['title']} ({kind}), {images}",
        f"recipe    {opened.space.recipe_name}",
        f"machine   {_counted(hardware['cpus'], 'core')}{gpus} on "
        f"{_counted(len(hardware['nodes']), 'node')}; "
        f"{_counted(share.concurrent, 'trial')} at once, {per_trial} each",
        f"precision {_precision_words(manifest, auto=settings.numerics.precision == 'auto')}",
        f"trials    {planned}, at most {epochs} epochs in total",
        f"stopping  {stopping_words(states.rule, [state.trial for state in trials])}",
    ]
    if not (data["synthetic"] or opened.recorded):
        lines.append("time      --dry-run estimates it, and proposes a smaller study that fits an hour")
    if opened.design is not None:
        lines.append(_stage_line(opened.design, screening=not settings.confirm))
    if follow:
        lines.append(f"          about {follow} on fresh seeds follow until the first look")
    if any(state.trial.config.pretrained for state in trials):
        lines.append(f"weights   {weights_words(manifest['weights'])}")
    lines.append(f"results   {opened.study.uri}")
    if opened.recorded:
        waiting = len(states.waiting())
        lines.append(f"resuming  {len(trials) - waiting} trials are done, {waiting} remain")
    return lines


def hanging(line: str, width: int) -> str:
    """A line of the header, whose further lines begin below its words instead of below its name.

    The place of the results stays whole, to be copied.
    """
    if line.startswith("results "):
        return line
    indent = " " * (10 if line[9:10] == " " else 0)
    lines = textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _precision_words(manifest: Mapping[str, Any], *, auto: bool) -> str:
    """The precision, and what a step of the study's networks took in each where `auto` measured it."""
    measured = manifest.get("precision_seconds") or []
    steps = [
        f"{each['network']}: {1000 * each['float32']:.0f} ms in float32, "
        f"{1000 * each['bfloat16']:.0f} in bfloat16"
        for each in measured
    ]
    words = f" (auto{': ' * bool(steps)}{'; '.join(steps)})" if auto else ""
    return f"{manifest['precision']}{words}"


def weights_words(weights: Mapping[str, Any]) -> str:
    """Where the pre-trained arm's weights come from, and what the answer covers."""
    source = str(weights["source"])
    if own := weights.get("self"):
        made = f"self-supervised on {own['source']} for each answering seed: intervals include that variation"
        if weights["source"] == own["source"]:
            return made
        return f"{made}; {weights_words({key: value for key, value in weights.items() if key != 'self'})}"
    if weights["per_seed"]:
        return f"pre-trained on {source} for each answering seed: intervals include that variation"
    return f"{source}, one checkpoint: the answer holds for this checkpoint only"


def _stage_line(design: AnsweringDesign, *, screening: bool) -> str:
    looks = ", ".join(map(str, design.looks))
    first = "screening, then reference and candidates" if screening else "reference and candidates"
    return f"stages    {first} on fresh seeds, looks after {looks} seeds"


def watching_lines(flags: Flags, runtime: Runtime) -> list[str]:
    """Who shares the machine, and where the study can be watched."""
    lines = []
    if runtime.neighbors:
        others = "another study runs" if runtime.neighbors == 1 else f"{runtime.neighbors} other studies run"
        lines.append(
            f"shared    {others} on this machine; this one keeps an equal share of the cores to its end "
            "(when it is stopped and started again with --resume, the share is recalculated)"
        )
    if not (flags.dashboard or flags.address):
        return lines
    return [
        *lines,
        f"watch     dashboard {runtime.dashboard_url or 'off'} "
        "(sign in with the output of `ray get-auth-token`)",
        f"          Prometheus {runtime.metrics_url}",
    ]


def awaited_words(crowded: bool, gpus: float) -> str:
    """What a study without a running job waits for.

    Args:
        crowded: whether something waits for resources of the cluster.
        gpus: of each trial.
    """
    return (
        f"waiting for free {'GPUs' if gpus else 'CPUs'} of the cluster" if crowded else "workers are starting"
    )


def print_interrupted(
    settings: StudySettings, states: TrialStates, pretrainings: Sequence[PretrainState], console: Console
) -> None:
    """What an interrupted study keeps, and how to continue it."""
    failed = sum(state.record.status is TrialStatus.FAILED for state in states.by_id.values())
    done = count_final(states.by_id.values()) - failed
    unfinished = len(states.by_id) - done - failed
    failures = f"{failed} failed and run again on resume, " if failed else ""
    console.print(
        Text(f"Interrupted: {done} trials are done and kept, {failures}{unfinished} are unfinished.")
    )
    for each in pretrainings:
        if each.epoch and not each.made:
            kept = f"{each.epoch} of {each.job.epochs} epochs are kept"
            console.print(Text(f"pre-training of {each.job.pretraining}: {kept}"))
    console.print(Text(f"Continue with: {resume_command(settings)}"), soft_wrap=True)


def print_end(opened: OpenedStudy, states: TrialStates, sentence: str, console: Console) -> None:
    """The cells' scores, the files, and the answer in one sentence."""
    console.print(cells_table(states.in_order(), states.metric, width=console.width))
    for line in problem_lines(states.in_order()):
        console.print(Text(line), soft_wrap=True)
    for name, content in FILES:
        console.print(Text(f"{(opened.study / name).uri}  {content}"), soft_wrap=True)
    if opened.study.is_local:
        console.print(
            Text(f"training curves: uvx tensorboard --logdir {opened.study.uri}/tensorboard"), soft_wrap=True
        )
    if sentence:
        console.print(Text(sentence, style="bold"))
    if opened.settings.quick and opened.study.is_local:
        console.print(Text("That was a rehearsal; its page, for a browser:"))
        console.print(Text((opened.study.local_path / "report.html").absolute().as_uri()), soft_wrap=True)


def report_command(study: Store) -> str:
    """The command that writes a study's report."""
    return f"uv run python study/report.py {shlex.quote(study.uri)}"


def resume_command(settings: StudySettings) -> str:
    """The command that continues a study."""
    return resume_words(settings.name, settings.storage)
