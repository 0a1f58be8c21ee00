"""Optional packages of the export, imported when they are asked for."""

from __future__ import annotations

from typing import Any

from autodl_ray.errors import MissingExtraError

__all__ = ["import_openvino"]


def import_openvino() -> Any:
    """Import the package.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError(
            "The format openvino needs the package openvino.",
            seen=str(error),
            hint="pip install 'autodl_ray[openvino]'",
        ) from error
    return openvino
