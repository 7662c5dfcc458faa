"""The only package that imports Ray: cluster, placement, workers, metrics."""
