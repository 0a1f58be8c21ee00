"""The augmentation policies that a specification names: read before any picture is, and part of what a run is."""

from __future__ import annotations

from autodl_ray.spec import Choice, ExperimentSpec
from autodl_ray.spec.sections import AUGMENTS

__all__ = ["policy_files", "read_policies"]


def read_policies(spec: ExperimentSpec) -> dict[str, str]:
    """Read every policy that ``train.augment`` and the search name.

    Returns:
        Word or path → digest of the policy; without ``auto``.

    Raises:
        SpecError: A file is missing, or has mistakes (all listed).
    """
    from autodl_ray.augment import AugmentPolicy

    searched = (spec.tune.param_space or {}).get("augment")
    words = (spec.train.augment, *(searched.values if isinstance(searched, Choice) else ()))
    return {str(word): AugmentPolicy.parse(str(word)).digest for word in words if word != "auto"}


def policy_files(spec: ExperimentSpec) -> dict[str, str]:
    """Return path → digest of the policies that come from files: the spec holds their paths, not what is in them.

    Raises:
        SpecError: A file is missing, or has mistakes (all listed).
    """
    return {word: digest for word, digest in read_policies(spec).items() if word not in AUGMENTS}
