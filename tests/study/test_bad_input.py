"""Bad input of every command: exit code 2, at most three lines, and the thing that is wrong is named."""

import os
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import segstrat.data.audit.__main__ as audit_command
import segstrat.data.cache.__main__ as cache_command
import segstrat.data.convert as convert_command
import segstrat.data.download.__main__ as download_command
import segstrat.data.shrink as shrink_command
import study.__main__ as segstrat_command
import study.frame.__main__ as frame_command
from segstrat import store
from segstrat.models import assemble_backbone
from segstrat.models.weights import save_backbone
from study import predict, pretrain, report, run
from study.frame import write_frames
from tests.study.conftest import trial, write_study

SPACE = """QUESTION = "?"
BASE = {"model": "fcn8s", "width": 0.25, "epochs": 2, "crop_size": 32, "batch_size": 2}
SPACE = {"pretrained": {"grid_search": [False, True]}, "weight_decay": {"grid_search": [0.0, 1e-3]}}
ROLES = {"pretrained": "arm", "weight_decay": "treatment"}
METRIC = "semseg_val_miou"
"""
TOML = """name = "mine"
images = "images"
[splits]
train = "train.txt"
val = "val.txt"
[tasks.semseg]
labels = "labels"
classes = ["background", "thing"]
"""
# Name of a variant of the good space -> what is replaced by what.
SPACES = {
    "no_question": ('QUESTION = "?"\n', ""),
    "odd_role": ('"treatment"', '"tretment"'),
    "extra_role": ('"pretrained": "arm"', '"pretrained": "arm", "dropout": "treatment"'),
    "odd_axis": ('"weight_decay": {"grid', '"weight_dekay": {"grid'),
    "fixed_axis": ('{"grid_search": [0.0, 1e-3]}', "1e-3"),
    "empty_axis": ("[0.0, 1e-3]", "[]"),
    "double_value": ("[0.0, 1e-3]", "[0.0, 0.0]"),
    "negative_value": ("[0.0, 1e-3]", "[0.0, -1.0]"),
    "text_value": ("[0.0, 1e-3]", '[0.0, "much"]'),
    "odd_field": ('"width": 0.25', '"wdith": 0.25'),
    "odd_model": ("fcn8s", "fcn9s"),
    "odd_backbone": ('"width": 0.25', '"width": 0.25, "backbone": "resnet19"'),
    "zero_width": ('"width": 0.25', '"width": 0.0'),
    "zero_epochs": ('"epochs": 2', '"epochs": 0'),
    "half_epochs": ('"epochs": 2', '"epochs": 2.5'),
    "odd_task": ('"width": 0.25', '"width": 0.25, "tasks": ("semsg",)'),
    "odd_metric": ("semseg_val_miou", "semseg_miou"),
    "syntax": ("QUESTION =", "QUESTION = ="),
    "raises": ("QUESTION =", "1 / 0\nQUESTION ="),
    "imports": ("QUESTION =", "import not_installed\nQUESTION ="),
    "exits": ("QUESTION =", "raise SystemExit\nQUESTION ="),
    "number_as_axis": ('"weight_decay": {"grid', '3: {"grid'),
    "huge_crop": ('"crop_size": 32', '"crop_size": 10_000_000'),
    "odd_search": ("METRIC =", 'SEARCH = "bayes"\nMETRIC ='),
}
# Name of a damaged copy of the folder of images -> what is replaced by what in dataset.toml.
FOLDERS = {
    "no_images": ('images = "images"\n', ""),
    "odd_key": ('name = "mine"', 'nme = "mine"'),
    "no_splits": ('[splits]\ntrain = "train.txt"\nval = "val.txt"\n', ""),
    "no_val": ('val = "val.txt"\n', ""),
    "odd_split": ('val = "val.txt"', 'val = "validation.txt"'),
    "no_labels": ('labels = "labels"', 'labels = "masks"'),
    "one_class": (', "thing"]', "]"),
    "number_class": ('"thing"]', "7]"),
    "few_values": ('"thing"]', '"thing"]\nvalues = [0]'),
    "high_value": ('"thing"]', '"thing"]\nvalues = [0, 70000]'),
    "shared_value": ('"thing"]', '"thing"]\nvalues = [0, 1]\nignore = [1]'),
    "odd_folder_task": ("[tasks.semseg]", "[tasks.semsg]"),
    "no_toml": ("name", "name = = "),
    "list_name": ('name = "mine"', "name = [1]"),
}
# These are not mistakes of dataset.toml alone, so another thing is named.
ELSEWHERE = ("odd_split", "no_labels")


def make_folder(root: Path, toml: str) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for name in "abcd":
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), np.uint8)).save(root / "images" / f"{name}.png")
        Image.fromarray(rng.integers(0, 2, (40, 48), np.uint8)).save(root / "labels" / f"{name}.png")
    (root / "train.txt").write_text("a\nb\n")
    (root / "val.txt").write_text("c\nd\n")
    (root / "dataset.toml").write_text(toml)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with good and bad spaces, images, studies and files."""
    root = tmp_path_factory.mktemp("scene")
    (root / "good.py").write_text(SPACE)
    for name, (old, new) in SPACES.items():
        assert old in SPACE, name
        (root / f"{name}.py").write_text(SPACE.replace(old, new))
    make_folder(root / "data", TOML)
    for name, (old, new) in FOLDERS.items():
        assert old in TOML, name
        make_folder(root / name, TOML.replace(old, new))
    make_folder(root / "torn_image", TOML)
    (root / "torn_image" / "images" / "a.png").write_bytes(b"no image")
    make_folder(root / "torn_label", TOML)
    (root / "torn_label" / "labels" / "c.png").write_bytes(b"")
    make_folder(root / "odd_label", TOML)
    Image.fromarray(np.full((40, 48), 9, np.uint8)).save(root / "odd_label" / "labels" / "a.png")
    make_folder(root / "odd_size", TOML)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / "odd_size" / "labels" / "a.png")
    make_folder(root / "leak", TOML)
    (root / "leak" / "val.txt").write_text("a\n")
    make_folder(root / "missing_image", TOML)
    (root / "missing_image" / "images" / "b.png").unlink()
    make_folder(root / "empty_split", TOML)
    (root / "empty_split" / "train.txt").write_text("")
    (root / "empty").mkdir()
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    (root / "file").write_text("text")
    (root / "weights.pth").write_bytes(b"no weights")
    torch.save({"a": torch.zeros(2)}, root / "other.pth")
    save_backbone(root / "good.pth", assemble_backbone("resnet18", 0.25))
    (root / "wide.py").write_text(SPACE.replace("0.25", "0.5"))
    axes = [{"weight_decay": wd, "pretrained": pre, "seed": 0} for wd in (0.0, 1e-3) for pre in (False, True)]
    write_study(root / "results" / "study", [trial(each, 0.3) for each in axes])
    write_frames(root / "results" / "study")
    write_study(root / "results" / "other_schema", [trial(axes[0], 0.3)], schema=7)
    write_study(root / "results" / "no_frames", [trial(axes[0], 0.3)])
    (root / "results" / "damaged").mkdir()
    for file in ("manifest.json", "trials.parquet", "epochs.parquet"):
        (root / "results" / "damaged" / file).write_text("{")
    return root


def on(folder: str, space: str = "good.py", more: str = "") -> str:
    """A dry run on a folder of images."""
    return f"--space {space} --data folder --data-root {folder} --weights good.pth --dry-run {more}"


RUN = [
    ("", "--space NAME"),
    ("--space", "--space"),
    ("--spaec wd_grid", "--spaec"),
    ("--space wd_gird", "wd_gird"),
    ("--space good", "good.py"),
    ("--space nowhere.py", "nowhere.py"),
    ("--space file.py", "file.py"),
    ("--space wd_grid trailing", "trailing"),
    ("--space wd_grid --seeds 0,x", "0,x"),
    ("--space wd_grid --seeds ,", "--seeds"),
    ("--space wd_grid --seeds 0,0 --dry-run", "seeds"),
    ("--space wd_grid --seeds -1 --dry-run", "seeds"),
    ("--space wd_grid --budget 0", "--budget"),
    ("--space wd_grid --budget much", "much"),
    ("--space wd_grid --budget inf", "inf"),
    ("--space wd_grid --gpus-per-trial 1.5", "1.5"),
    ("--space wd_grid --gpus-per-trial some", "some"),
    ("--space wd_grid --cpus-per-trial 0", "--cpus-per-trial"),
    ("--space wd_grid --max-concurrent -2", "--max-concurrent"),
    ("--space wd_grid --top 0", "--top"),
    ("--space wd_grid --max-seeds none", "--max-seeds"),
    ("--space wd_grid --max-seeds 0", "--max-seeds"),
    ("--space wd_grid --scheduler hyperband", "hyperband"),
    ("--space wd_grid --precision float16", "float16"),
    ("--space wd_grid --name ../x", "../x"),
    ("--space wd_grid --name ''", "--name"),
    (f"--space wd_grid --name {'x' * 300}", "at most 200"),
    ("--space wd_grid --weights ''", "--weights is empty"),
    ("--space wd_grid --data-root '' --dry-run", "--data-root is empty"),
    ("--space wd_grid --storage s3:// --dry-run", "names no bucket"),
    (f"--space wd_grid --seeds {2**70} --dry-run", "seeds"),
    ("--space wd_grid --accept-changes", "--accept-changes"),
    ("--space wd_grid --data figurse --dry-run", "figurse"),
    ("--space wd_grid --data d1 --dry-run --weights imagenet", "--data-root"),
    ("--space wd_grid --data d1 --data-root nowhere --dry-run --weights imagenet", "nowhere"),
    ("--space wd_grid --data voc --data-root empty --dry-run --weights imagenet", "VOC"),
    ("--space wd_grid --storage ftp://x/y", "ftp://x/y"),
    ("--space wd_grid --storage file --dry-run", "file"),
    ("--space wd_grid --storage s3://key:secret@bucket/x", "AWS_ACCESS_KEY_ID"),
    ("--resume", "--name NAME"),
    ("--resume --name nowhere", "nowhere"),
    ("--space wd_grid --resume", "wd_grid"),
    ("--space good.py --resume", "good"),
    ("--resume --name damaged", "manifest.json"),
    ("--resume --name other_schema", "schema"),
    ("--resume --name study --confirm elsewhere", "--confirm"),
    ("--status nowhere", "nowhere"),
    ("--status file", "file"),
    ("--status results/damaged", "manifest.json"),
    ("--status results/other_schema", "schema"),
    ("--confirm nowhere", "nowhere"),
    ("--confirm results/study --space wd_grid", "--space"),
    ("--confirm results/study --scheduler asha", "--scheduler"),
    ("--confirm results/study --seeds 1 --max-seeds 2", "--seeds"),
    ("--new-space not-a-name", "not-a-name"),
    ("--new-space good", "good.py"),
    ("--new-space nowhere/mine", "nowhere"),
    *((on("data", f"{name}.py"), name) for name in SPACES),
    *((on(folder), "dataset.toml") for folder in FOLDERS if folder not in ELSEWHERE),
    (on("odd_split"), "validation.txt"),
    (on("no_labels"), "masks"),
    (on("nowhere"), "nowhere"),
    (on("empty"), "dataset.toml"),
    (on("file"), "file"),
    (on("torn_image"), "a.png"),
    (on("torn_label"), "c.png"),
    (on("odd_label"), "a.png"),
    (on("odd_size"), "a.png"),
    (on("leak"), "val"),
    (on("missing_image"), "b"),
    (on("empty_split"), "train"),
    (on("data").replace("good.pth", "nowhere.pth"), "nowhere.pth"),
    (on("data").replace("good.pth", "weights.pth"), "weights.pth"),
    (on("data").replace("good.pth", "other.pth"), "other.pth"),
    (on("data").replace("good.pth", "empty"), "empty"),
    (on("data").replace("good.pth", "imagenet"), "imagenet"),
    (on("data", "wide.py"), "width"),
]
REPORT = [
    ("", "DIR"),
    ("nowhere", "nowhere"),
    ("file", "file"),
    ("empty", "empty"),
    ("results/damaged", "damaged"),
    ("results/no_frames", "no_frames"),
    ("results/study --margin 2", "--margin"),
    ("results/study --margin -0.1", "--margin"),
    ("results/study --margin nan", "--margin"),
    ("results/study --margin wide", "wide"),
    ("results/study --out empty", "--out"),
    ("results/study --out file/page.html", "file"),
    ("results/study --uot page.html", "--uot"),
]
PREDICT = [
    ("", "--trial"),
    ("--trial results/study/x --gallery results/study", "--gallery"),
    ("--trial nowhere/x --images data/images --out out", "nowhere/x"),
    ("--trial results/study/x --images data/images", "--out"),
    ("--trial results/study/x --out out", "--images"),
    ("--trial results/study/x --images a --split val --out out", "--split"),
    ("--trial results/study/x --split trian --out out", "trian"),
    ("--trial results/study/x --images data/images --out file", "--out"),
    ("--trial {trial} --images data/images --out out", "checkpoint"),
    ("--trial {trial} --images data/images --out out --device gpu9", "gpu9"),
    ("--trial {trial} --images data/images --out out --scales 0", "--scales"),
    ("--trial {trial} --images data/images --out out --scales big", "big"),
    ("--trial {trial} --images data/images --out out --competition comp7", "comp7"),
    ("--gallery nowhere", "nowhere"),
    ("--gallery results/study", "checkpoint"),
    ("--galery results/study", "--galery"),
]
PRETRAIN = [
    ("--backbone resnet19", "resnet19"),
    ("--width 0", "width"),
    ("--width -1", "width"),
    ("--width nan", "width"),
    ("--width wide", "wide"),
    ("--epochs 0", "--epochs"),
    ("--epochs some", "some"),
    ("--seed -1", "--seed"),
    (f"--seed {2**64}", "--seed"),
    ("--data nowhere", "nowhere"),
    ("--data empty", "empty"),
    ("--data file", "file"),
    ("--data classes --out file/out.pth --width 0.25", "file"),
    ("--data classes --out file --width 0.25", "file"),
    ("--data classes --resume --out new.pth --width 0.25", "--resume"),
    ("--bakcbone resnet18", "--bakcbone"),
    ("figures", "figures"),
]
FRAME = [
    ("", "no study"),
    ("nowhere", "nowhere"),
    ("empty", "empty"),
    ("results/damaged", "manifest.json"),
    ("results/other_schema", "schema"),
]
AUDIT = [
    ("", "protocol"),
    ("figurse", "figurse"),
    ("d1", "--root"),
    ("voc --root nowhere", "nowhere"),
    ("voc --root empty", "VOC"),
    ("folder --root odd_key", "nme"),
    ("folder --root odd_folder_task", "semsg"),
    ("folder --root empty", "dataset.toml"),
    ("folder --roott empty", "--roott"),
    ("folder data", "data"),
]
DOWNLOAD = [
    ("", "NAME"),
    ("voc", "--root"),
    ("vocc --root empty", "vocc"),
    ("sbd vocc --root empty", "vocc"),
    ("voc --root file", "file"),
    ("voc --roott empty", "--roott"),
]
COMMANDS: dict[str, tuple[Callable[[list[str]], int], list[tuple[str, str]]]] = {
    "run": (run.main, RUN),
    "report": (report.main, REPORT),
    "predict": (predict.main, PREDICT),
    "pretrain": (pretrain.main, PRETRAIN),
    "frame": (frame_command.main, FRAME),
    "audit": (audit_command.main, AUDIT),
    "download": (download_command.main, DOWNLOAD),
}
CASES = [(command, line, word) for command, (_, lines) in COMMANDS.items() for line, word in lines]


def test_there_are_at_least_a_hundred():
    assert len(set(CASES)) >= 100


@pytest.fixture(scope="module", autouse=True)
def classes(scene: Path) -> None:
    """A folder of images by class, for pre-training."""
    for split in ("train", "val"):
        for label in ("one", "two"):
            folder = scene / "classes" / split / label
            folder.mkdir(parents=True)
            for name in "ab":
                Image.new("RGB", (40, 40), (ord(name), 3 * len(label), 9)).save(folder / f"{name}.png")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, no data root, and torchvision's weights not in the cache."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("SEGSTRAT_DATA", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("offline", "few_figures")
@pytest.mark.parametrize(("command", "line", "word"), CASES, ids=[f"{c} {a}" for c, a, _ in CASES])
def test_bad_input_is_answered_in_a_sentence(command, line, word, scene, monkeypatch, capsys):
    monkeypatch.chdir(scene)
    trial_folder = next((scene / "results" / "study" / "trials").iterdir())
    before = sorted(scene.rglob("*"))
    assert COMMANDS[command][0](shlex.split(line.format(trial=trial_folder))) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.strip().splitlines()) <= 3, error
    assert word in error
    assert "Traceback" not in error
    kept = {path for path in sorted(scene.rglob("*")) if "__pycache__" not in path.parts}
    assert kept == {path for path in before if "__pycache__" not in path.parts}, "nothing was written"


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URI of S3 storage that accepts connections and never answers; all waiting is shortened to a tenth."""
    for name in ("REQUEST_SECONDS", "FIRST_SECONDS"):
        monkeypatch.setattr(store, name, getattr(store, name) / 10)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        yield f"s3://bucket/study?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (run.main, "--status {}"),
        (run.main, "--space wd_grid --storage {}"),
        (run.main, "--resume --name x --storage {}"),
        (report.main, "{}"),
        (predict.main, "--gallery {}"),
    ],
)
def test_storage_that_accepts_and_never_answers(command, line, silent, capsys):
    start = time.monotonic()
    assert command(shlex.split(line.format(shlex.quote(silent)))) == 2
    assert time.monotonic() - start < 2 * store.FIRST_SECONDS, "one operation has waited"
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert "storage s3://bucket/study does not answer (tried for" in error


# Names of files, folders, studies and data that there are not, or that are something else.
HOSTILE = (
    *(
        "nowhere",
        "x" * 5000,
        "a\nb",
        "{}%s$(x)",
        "~nobody/x",
        "loop",
        "/dev/null",
        "file/x",
        "s3://",
    ),
    *(
        "ftp://x/y",
        "file",
        "empty",
        "  ",
        "fifo",
        "*",
        "é" * 90,
        "results/damaged",
        "../../nowhere",
        ".",
    ),
)
BAD_NUMBERS = ("x", "-3", "0x1", "1e999", "nan", "", "1,,2", "½", "9" * 400, "[1]")
NAMED: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "run": (
        run.main,
        [
            *("--status {}", "--confirm {}", "--resume --name {}", "--space {} --dry-run"),
            *("--space good.py --data {} --dry-run", "--space good.py --weights {} --dry-run --data folder"),
            "--space good.py --data folder --weights good.pth --dry-run --data-root {}",
            "--space good.py --data coco --weights good.pth --dry-run --data-root {}",
        ],
    ),
    "report": (report.main, ["{}"]),
    "frame": (frame_command.main, ["{}"]),
    "predict": (
        predict.main,
        [
            "--gallery {}",
            "--trial {} --images data/images --out out",
            "--trial results/study/x --split {} --out o",
        ],
    ),
    "pretrain": (pretrain.main, ["--data {}", "--backbone {}", "{}"]),
    "audit": (audit_command.main, ["folder --root {}", "voc --root {}", "{}", "{} --root data"]),
    "download": (download_command.main, ["{} --root empty", "{}"]),
    "cache": (cache_command.main, ["--cache-dir empty {}", "--cache-dir file {}", "--older-than {}"]),
    "convert": (convert_command.main, ["coco {} --out out", "{} data --out out", "labelme {} --out out"]),
    "shrink": (shrink_command.main, ["{}", "folder {} out", "{} data out"]),
    "segstrat": (segstrat_command.main, ["{}", "data {}", "run --status {}"]),
}
NUMBERS = {
    "run": "seeds budget gpus-per-trial cpus-per-trial max-concurrent max-seeds top precision scheduler",
    "report": "margin",
    "predict": "scales batch-size",
    "pretrain": "width epochs seed",
}


def bad_lines() -> list[tuple[Callable[[list[str]], int], list[str]]]:
    """Command lines with one mistake each: a name, a number, a flag of another spelling."""
    found = []
    for command, templates in NAMED.values():
        for template in templates:
            words = template.split()
            found += [(command, [word.replace("{}", name) for word in words]) for name in HOSTILE]
    for name, flags in NUMBERS.items():
        for flag in flags.split():
            line = ["--space", "wd_grid", "--dry-run"] if name == "run" else []
            found += [(NAMED[name][0], [*line, f"--{flag}", value]) for value in BAD_NUMBERS]
            found += [
                (NAMED[name][0], [*line, f"--{flag[:-1]}", "1"]),
                (NAMED[name][0], [*line, f"--{flag}"]),
            ]
    return found


@pytest.mark.usefixtures("offline", "few_figures")
def test_one_mistake_in_any_command_is_answered_in_a_sentence(scene, monkeypatch, capsys):
    monkeypatch.chdir(scene)
    every = bad_lines()
    assert len(every) >= 400
    problems = []
    for command, words in every:
        try:
            code: object = command(words)
        except (Exception, SystemExit) as error:
            code = repr(error)[:200]
        said = capsys.readouterr().err
        if code != 2 or not said.startswith("error: ") or len(said.strip().splitlines()) > 3:
            problems.append((command.__module__, [word[:60] for word in words], code, said[:300]))
    assert not problems, "\n".join(map(repr, problems))
