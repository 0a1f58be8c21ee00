"""Small real data for tests and first tries: scikit-learn's handwritten digits written out as a folder of pictures."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_digits"]


def write_digits(folder: str | Path, *, n: int | None = None, scale: int = 1) -> Path:
    """Write scikit-learn's digits as grey PNG files, one folder a class (``0`` to ``9``).

    The first ``n`` digits of the set are taken, whose classes are close to balanced; nothing is random. The set is
    from the UCI machine learning repository (E. Alpaydin, C. Kaynak, 1998, CC BY 4.0) and comes with scikit-learn.

    Args:
        folder: Where the class folders go; made when missing.
        n: How many digits, 1 to 1,797; None writes all.
        scale: Each of the 8 × 8 pixels becomes ``scale`` × ``scale`` pixels.

    Returns:
        The folder.

    Example:
        >>> import tempfile
        >>> root = write_digits(tempfile.mkdtemp(), n=50)
        >>> len(list(root.glob("*/*.png")))
        50
    """
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    root = Path(folder)
    digits = load_digits()
    for position, (grey, label) in enumerate(zip(digits.images[:n], digits.target[:n], strict=True)):
        path = root / str(label) / f"digit{position:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.rint(grey * (255.0 / 16.0)).astype(np.uint8)
        Image.fromarray(np.kron(pixels, np.ones((scale, scale), dtype=np.uint8))).save(path)
    return root
