"""A grid of weight decays in both arms, and the answer of a study's folder."""

import numpy as np
import pytest

from study.analysis.answer import answer_study
from study.analysis.study import Study
from study.frame import write_frames

DECAYS = (0.0, 5e-4, 5e-3)


@pytest.fixture
def grid(make_trial):
    """`grid(raw, pretrained)` makes trials whose scores rise over the seeds, one value per weight decay."""

    def make(raw, pretrained, *, seeds=(0, 1, 2), noise=0.003, train=(0.7, 0.5), **more):
        rng = np.random.default_rng(1)
        return [
            make_trial(
                {"pretrained": pre, "weight_decay": decay, "seed": seed},
                float(value + 0.01 * seed + rng.normal(0, noise)),
                train=float(train[pre] + rng.normal(0, noise)),
                **more,
            )
            for seed in seeds
            for pre, values in ((False, raw), (True, pretrained))
            for decay, value in zip(DECAYS, values, strict=True)
        ]

    return make


@pytest.fixture(scope="session")
def answer_of():
    """`answer_of(folder)` writes the frames of a study and answers it."""

    def answer(folder, **options):
        write_frames(folder)
        return answer_study(Study.open(folder), **options)

    return answer
