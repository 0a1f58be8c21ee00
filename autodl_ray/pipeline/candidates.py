"""A contender as the files that may be delivered: exported, and checked against the model that was trained."""

from __future__ import annotations

from autodl_ray import export
from autodl_ray.artifacts import Artifact
from autodl_ray.pipeline.state import Contender, Run
from autodl_ray.spec import ExportSpec

__all__ = ["candidate_of", "judging_seconds"]


def candidate_of(run: Run, contender: Contender, *, int8: bool, quick: bool, freely: bool = False) -> Artifact:
    """Export a contender, or look up what was exported of it.

    Args:
        run: What it belongs to.
        contender: Its weights and its network.
        int8: Whether INT8 is tried.
        quick: Check it on fewer pictures.
        freely: Keep INT8 whatever it loses and gains: other rules choose between the files (``tune.limits``).
    """
    from autodl_ray.models.classifier import build, load_weights

    source = contender.row.source
    key = run.context.key(
        f"candidates/{source.replace(' ', '-')}{'-int8' if int8 else ''}{'-any' if freely and int8 else ''}"
    )
    inputs = {"weights": export.weights_digest(contender.weights_file), "dataset": run.version.id}
    found = run.context.store.find(key)
    if found is not None and found.manifest.inputs == inputs:
        return found
    network = contender.network
    model = build(
        network.entry.name,
        num_classes=run.version.num_classes,
        image_size=network.preprocess.size,
        weights="none",
    )
    load_weights(model, contender.weights_file)
    return export.make_candidate(
        _keeping_int8(run.spec.export) if freely else run.spec.export,
        export.CandidateInputs(
            model=model.eval(),
            model_name=network.entry.name,
            preprocess=network.preprocess,
            classes=run.version.classes,
            train=run.version.train,
            val=run.version.val,
            dataset_id=run.version.id,
            source=source,
            with_int8=int8,
            val_scores={"accuracy": contender.row.accuracy, "macro_f1": contender.row.macro_f1},
            licence=network.entry.licence,
            parity_samples=64 if quick else None,
            inputs=inputs,
            deadline=run.context.budget.deadline - judging_seconds(run),
        ),
        key=key,
        context=run.context,
    )


def judging_seconds(run: Run) -> float:
    """Estimate what comes after the export: the test split in both variants, the report, and ending Ray."""
    return 3.0 + 1.5 * run.version.test.size / run.speeds.get("infer_per_s", 100.0)


def _keeping_int8(spec: ExportSpec) -> ExportSpec:
    return ExportSpec.model_validate({**spec.model_dump(), "max_drop": 0.2, "min_speedup": 1e-6})
