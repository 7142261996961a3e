"""Exact and near-duplicate removal: signatures, candidate pairs, verification, clusters, survivors."""

from typing import TYPE_CHECKING

from pipeline import lazily

if TYPE_CHECKING:
    from pipeline.kernels.clusters import find_duplicates
    from pipeline.kernels.minhash import MinHasher

__all__ = ["MinHasher", "find_duplicates"]
__getattr__ = lazily(__name__, MinHasher="pipeline.kernels.minhash", find_duplicates="pipeline.kernels.clusters")
