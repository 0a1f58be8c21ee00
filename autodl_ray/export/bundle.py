"""From a candidate to the bundle that is delivered: the same files, with test scores and serving settings."""

from __future__ import annotations

import shutil
from typing import Any

from autodl_ray.artifacts import Artifact
from autodl_ray.artifacts.bundle import BUNDLE_JSON, BundleInfo, open_bundle
from autodl_ray.runtime import Context
from autodl_ray.spec import ServeSpec, spec_digest

__all__ = ["write_bundle"]


def write_bundle(
    candidate: Artifact, *, report: Artifact | None, serve: ServeSpec, context: Context, key: str = "bundle"
) -> Artifact:
    """Write the bundle of a candidate; an earlier bundle of the run is replaced in one step.

    Args:
        candidate: What :func:`autodl_ray.export.make_candidate` wrote; verified before it is copied.
        report: The evaluation on the sealed test split, where there is one.
        serve: Settings that ``autodl serve`` starts from.
        context: Surroundings of the run.
        key: Name of the artifact within the run.

    Returns:
        The artifact; a bundle that is there already of the same candidate, report and settings is returned as it is.

    Raises:
        BundleError: The candidate is damaged.
        StoreError: The store cannot be written.
    """
    inputs = {"candidate": candidate.id, **({"evaluation": report.id} if report is not None else {})}
    digest = spec_digest(serve)
    found = context.store.find(context.key(key))
    if found is not None and found.manifest.inputs == inputs and found.manifest.spec_digest == digest:
        return found
    candidate, info = open_bundle(candidate.path, verify=True)
    scores = _test_scores(report) if report is not None else None
    document = {**info.model_dump(), "test_scores": scores, "serve": serve.model_dump(mode="json")}
    with context.store.write(
        context.key(key), kind="bundle", spec_digest=digest, inputs=inputs, seed=context.seed, meta=candidate.meta
    ) as writer:
        for name in candidate.manifest.files:
            if name != BUNDLE_JSON:
                shutil.copyfile(candidate.path / name, writer.path / name)
        (writer.path / BUNDLE_JSON).write_text(BundleInfo.model_validate(document).to_json(), encoding="utf-8")
    written = context.store.find(context.key(key))
    assert written is not None
    return written


def _test_scores(report: Artifact) -> dict[str, Any]:
    """Scores of the delivered file, with intervals; the confusion matrix and the rest stay in the report."""
    return {k: v for k, v in report.meta.items() if k != "facts"}
