"""One file of a candidate alone: what is delivered where limits decide which one."""

from __future__ import annotations

from collections.abc import Mapping

from autodl_ray.artifacts import Artifact
from autodl_ray.artifacts.bundle import BUNDLE_JSON, MODEL_FILES, BundleInfo, Variant, open_bundle
from autodl_ray.errors import BundleError
from autodl_ray.export.candidate import content_version
from autodl_ray.runtime import Context

__all__ = ["only_variant"]


def only_variant(
    candidate: Artifact,
    variant: Variant,
    *,
    reason: str,
    val_scores: Mapping[str, float],
    key: str,
    context: Context,
) -> Artifact:
    """Write a candidate that holds one model file of ``candidate`` and no other.

    Args:
        candidate: What :func:`autodl_ray.export.make_candidate` wrote; verified before it is copied.
        variant: Of the file that is kept.
        reason: Why, for the record on INT8.
        val_scores: Of that file on the validation split.
        key: Of the artifact in the store.
        context: The surroundings.

    Returns:
        The artifact; one that is there already of the same candidate and choice is returned as it is.

    Raises:
        BundleError: The candidate is damaged or has no such variant.
    """
    inputs = {**candidate.manifest.inputs, "candidate": candidate.id}
    found = context.store.find(key)
    if found is not None and found.manifest.inputs == inputs and found.meta.get("reason") == reason:
        return found
    candidate, info = open_bundle(candidate.path, verify=True)
    if variant not in info.variants:
        raise BundleError(f"The candidate has no {variant} variant.", seen=", ".join(info.variants))
    left_out = {MODEL_FILES[other] for other in info.variants if other != variant} | {BUNDLE_JSON}
    with context.store.write(
        key,
        kind="candidate",
        spec_digest=candidate.manifest.spec_digest,
        inputs=inputs,
        seed=context.seed,
        meta={**candidate.meta, "reason": reason},
    ) as writer:
        candidate.copy_files(writer.path, without=left_out)
        files: dict[Variant, bytes] = {variant: (writer.path / MODEL_FILES[variant]).read_bytes()}
        document = {
            **info.model_dump(),
            "version": content_version(files, info.classes, info.preprocess),
            "variants": {variant: MODEL_FILES[variant]},
            "default_variant": variant,
            "int8": {**info.int8.model_dump(), "kept": variant == "int8", "reason": reason},
            "val_scores": dict(val_scores),
        }
        (writer.path / BUNDLE_JSON).write_text(BundleInfo.model_validate(document).to_json(), encoding="utf-8")
    written = context.store.find(key)
    assert written is not None
    return written
