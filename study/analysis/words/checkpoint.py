"""Which pre-training a study's statements are about: one checkpoint, or one per seed."""

from study.analysis.study import Study

GIVEN = (
    "All statements are given this checkpoint: every pre-trained trial starts from the same weights, and "
    "another run of the same pre-training may differ by more than the seeds do."
)
PER_SEED = "Each seed has its own pre-training, so the intervals include the variation of pre-training."


def checkpoint_note(study: Study) -> str:
    """Whether the intervals include the variation of pre-training; '' where the weights are not known."""
    columns = {"weights_digest", "seed", "pretrained"}
    if not columns <= set(study.trials):
        return ""
    trials = study.trials
    if "stage" in trials and (trials["stage"] != "screening").any():
        trials = trials[trials["stage"] != "screening"]
    used = trials[trials["pretrained"].astype(bool) & trials["weights_digest"].fillna("").ne("")]
    if used.empty:
        return ""
    if used["seed"].nunique() == 1:
        return PER_SEED if (study.manifest.get("weights") or {}).get("per_seed") else GIVEN
    shared = used.groupby("weights_digest")["seed"].nunique().max() > 1
    return GIVEN if shared else PER_SEED
