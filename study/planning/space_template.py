"""The commented template that `--new-space` writes."""

from pathlib import Path

from segstrat.errors import UserError
from study.planning.space_files import is_space_file

TEMPLATE = '''"""Does weight decay close the gap between raw and pre-trained on my data?        (the question)

What you expect and why; what each axis is for.

Command: uv run python study/run.py --space {file} --data folder --data-root DIR --weights imagenet
Trials: 6 per seed.
"""

from ray import tune

# Shown by the console and the report.
QUESTION = "Does weight decay close the gap between raw and pre-trained on my data?"

# What is the same in all trials: fields of segstrat.config.TrialConfig, which docs/spaces.md lists with their
# defaults. Epochs, crop size, batch size and learning rates come from a recipe unless they are set here.
BASE = {{
    "model": "fcn8s",  # fcn32s, fcn16s and fcn8s take any backbone; sunet64 is its own
    "backbone": "resnet18",
    "tasks": ("semseg",),
}}

# What replaces BASE on some data; optional.
ON = {{
    "figures": {{"width": 0.25}},
}}

# The axes. Every combination is trained once per seed.
SPACE = {{
    "pretrained": tune.grid_search([False, True]),
    "weight_decay": tune.grid_search([0.0, 5e-4, 5e-3]),
    # Drawn instead of listed (then state SAMPLES, the number of points):
    # "dropout": tune.uniform(0.0, 0.6),
}}

# What each axis is for: `arm` (the strategies that are compared), `treatment` (the strength of a
# regularizer), `nuisance` (every value is a comparison of its own) or `tuned` (such as the learning rate:
# its best value is chosen for each setting).
ROLES = {{"pretrained": "arm", "weight_decay": "treatment"}}

# What trials are judged by: <task>_val_miou.
METRIC = "semseg_val_miou"

# Seeds of the screening, which nominates candidates; optional. The answer comes from fresh seeds, which the
# study adds until the question is settled. A study of one stage trains every cell once per seed: give it at
# least three, because fewer allow no intervals. --seeds overrides it.
# SEEDS = (0, 1)


# A recipe of your own; optional, and then no other is used. It may depend on the arm, as here the learning
# rate does. Fields of BASE and SPACE override it.
# def recipe(data, model, *, pretrained):
#     rate = 0.01 if pretrained else 0.02
#     return {{"epochs": 60, "crop_size": 256, "batch_size": 8, "learning_rate": rate}}
'''


def write_template(name: str) -> Path:
    """Writes a search space to start from; returns its file.

    Args:
        name: of the space or its file; without a folder it goes into the working directory.

    Raises:
        UserError: if there is such a file already, or it cannot be written.
    """
    path = Path(name if is_space_file(name) else f"{name}.py").expanduser()
    if not path.stem.isidentifier():
        raise UserError(f"--new-space {name}: give a name of letters, digits and '_', such as my_space")
    if path.exists():
        raise UserError(f"--new-space {name}: {path} exists already; choose another name")
    try:
        path.write_text(TEMPLATE.format(file=path), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--new-space {name}: {path} cannot be written ({error.strerror or error})"
        ) from error
    return path
