"""segstrat: semantic segmentation trainings whose strategy switches can be searched over.

The library knows nothing of Ray; `study/` wraps it in trials.
"""

__version__ = "0.1.0"
