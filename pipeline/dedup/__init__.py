"""Exact and near-duplicate removal: signatures, candidate pairs, verification, clusters, survivors."""

from pipeline.kernels.clusters import find_duplicates

__all__ = ["find_duplicates"]
