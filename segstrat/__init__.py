"""segstrat: training of semantic segmentation models with searchable training strategies.

The library does not import Ray; `study/` runs its trainings as trials.
"""

__version__ = "0.2.0"
