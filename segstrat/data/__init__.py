"""Images and labels: readers of published layouts, protocols, cache, augmentation, loaders."""

from segstrat.data.dataset import VOID, Concat, Dataset, Sample, Subset
from segstrat.data.protocols import DataProtocol, build_protocol
from segstrat.data.sources import PROTOCOLS

__all__ = ["PROTOCOLS", "VOID", "Concat", "DataProtocol", "Dataset", "Sample", "Subset", "build_protocol"]
