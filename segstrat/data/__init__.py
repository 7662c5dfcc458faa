"""Images and labels: readers of published layouts, protocols, cache, augmentation, loaders."""

from segstrat.data.dataset import VOID, Concat, Dataset, Sample, Subset
from segstrat.data.protocols import PROTOCOLS, DataProtocol, build_protocol

__all__ = ["PROTOCOLS", "VOID", "Concat", "DataProtocol", "Dataset", "Sample", "Subset", "build_protocol"]
