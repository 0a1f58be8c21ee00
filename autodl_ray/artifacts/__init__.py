"""The types that flow from stage to stage, and the store that keeps them."""

from autodl_ray.artifacts.dataset import (
    BoxTable,
    DatasetVersion,
    LearningSamples,
    Ranges,
    Samples,
    SealedSplit,
    TestSamples,
    TrainSamples,
    ValSamples,
    check_learning,
)
from autodl_ray.artifacts.manifest import Manifest, read_manifest
from autodl_ray.artifacts.store import Artifact, ArtifactWriter, Store, open_artifact, write_atomic

__all__ = [
    "Artifact",
    "ArtifactWriter",
    "BoxTable",
    "DatasetVersion",
    "LearningSamples",
    "Manifest",
    "Ranges",
    "Samples",
    "SealedSplit",
    "Store",
    "TestSamples",
    "TrainSamples",
    "ValSamples",
    "check_learning",
    "open_artifact",
    "read_manifest",
    "write_atomic",
]
