"""Study frames → contrasts with intervals → verdict.

from study.analysis import answer
from study.frame import load, read_manifest

trials, epochs = load("results/my-study")
found = answer(trials, read_manifest("results/my-study"), epochs)
print(found.label, found.sentence)
"""

from study.analysis.answer import Answer, answer

__all__ = ["Answer", "answer"]
