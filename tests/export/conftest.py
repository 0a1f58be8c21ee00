"""One small data set, one fitted network and one candidate for all tests of export."""

from __future__ import annotations

import pytest

from autodl_ray.artifacts import Artifact
from autodl_ray.export import CandidateInputs, make_candidate
from autodl_ray.images import Preprocess
from autodl_ray.models.classifier import Classifier
from autodl_ray.spec import ExportSpec
from tests.export.tiny import CLASSES, Shapes, context_in, fitted, make_shapes


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Shapes:
    return make_shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="session")
def preprocess() -> Preprocess:
    return Preprocess(32, "pad", (0.4, 0.5, 0.6), (0.25, 0.3, 0.2))


@pytest.fixture(scope="session")
def model(shapes: Shapes, preprocess: Preprocess) -> Classifier:
    return fitted(shapes, preprocess)


@pytest.fixture(scope="session")
def inputs(shapes: Shapes, preprocess: Preprocess, model: Classifier) -> CandidateInputs:
    return CandidateInputs(
        model=model,
        model_name="small_cnn",
        preprocess=preprocess,
        classes=CLASSES,
        train=shapes.train,
        val=shapes.val,
        dataset_id="d" * 32,
        source="train",
        val_scores={"accuracy": 1.0},
        licence="Apache-2.0",
        inputs={"dataset": "d" * 32, "weights": "w" * 32},
    )


@pytest.fixture(scope="session")
def candidate(inputs: CandidateInputs, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A candidate with INT8: the limits are so wide that it is kept."""
    spec = ExportSpec(calibration=24, max_drop=0.2, min_speedup=0.001)
    folder = tmp_path_factory.mktemp("store")
    return make_candidate(spec, inputs, key="shapes/candidates/train", context=context_in(folder))
