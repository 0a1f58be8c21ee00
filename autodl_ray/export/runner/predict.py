"""Classify pictures with the model in this folder or zip: onnxruntime, numpy and Pillow are all that it needs."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autodl_ray.artifacts.smoke import SMOKE_JSON, smoke_difference
from autodl_ray.errors import AutoDLError, BundleError, DatasetError
from autodl_ray.images import decode_image, without_far_ends

__all__ = ["Model", "main"]


class Model:
    """The model of a packed folder or zip.

    Args:
        root: The folder or zip that holds ``manifest.json``.
        num_threads: Threads of one call; 0: all cores.

    Raises:
        BundleError: A file is missing, truncated or changed.
    """

    def __init__(self, root: str | Path, *, num_threads: int = 0) -> None:
        import onnxruntime

        self._root = Path(root)
        self._manifest = _sealed(_json(self._raw("manifest.json"), "manifest.json"))
        self.info: dict[str, Any] = _json(self.file("bundle.json"), "bundle.json")
        self.variant: str = self.info["default_variant"]
        self.classes: list[str] = self.info["classes"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            self.file(self.info["variants"][self.variant]), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Answer N pictures (H, W, 3) uint8, RGB, of any sizes with (N, C) float32 probabilities."""
        crop = self.info["preprocess"]["fit"] == "crop"
        images = [without_far_ends(p) for p in pictures] if crop else pictures
        return np.concatenate([self._session.run(["probabilities"], {"image": p[None]})[0] for p in images])

    def file(self, name: str) -> bytes:
        """Return a file, checked against the manifest."""
        record = self._manifest["files"].get(name)
        raw = self._raw(name)
        if record is None or len(raw) != record["bytes"] or hashlib.sha256(raw).hexdigest() != record["sha256"]:
            raise BundleError(
                "A file of the model is truncated or was changed.",
                seen=f"{self._root}: {name}: {len(raw)} bytes",
                hint="copy the model again",
            )
        return raw

    def verify(self) -> None:
        """Check every file against the manifest."""
        for name in self._manifest["files"]:
            self.file(name)

    def _raw(self, name: str) -> bytes:
        try:
            if self._root.is_dir():
                return (self._root / name).read_bytes()
            with zipfile.ZipFile(self._root) as archive:
                return archive.read(name)
        except (OSError, KeyError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise BundleError(
                "A file of the model is missing or damaged.",
                seen=f"{self._root}: {name}: {error}",
                hint="copy the model again",
            ) from error


def _json(raw: bytes, name: str) -> Any:
    try:
        return json.loads(raw)
    except ValueError as error:
        raise BundleError(f"{name} is damaged.", seen=str(error), hint="copy the model again") from error


def _sealed(manifest: Any) -> dict[str, Any]:
    """Return the manifest where its seal fits: then it is as it was written, and names what is needed."""
    content = dict(manifest) if isinstance(manifest, dict) else {}
    seal = content.pop("seal", "")
    if hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest() != seal:
        raise BundleError("manifest.json was changed.", hint="copy the model again")
    return content


def main(root: str | Path, arguments: list[str] | None = None) -> int:
    """Run the command line; 0 done, 1 failed, 2 unusable input.

    Args:
        root: The folder or zip with the model.
        arguments: Of the command line.
    """
    parser = argparse.ArgumentParser(prog="predict.py", description=__doc__)
    parser.add_argument("files", nargs="*", help="pictures: JPEG, PNG, WebP, BMP, GIF, TIFF")
    parser.add_argument("--top-k", type=int, default=1, help="how many classes to name")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--self-test", action="store_true", help="check every file, and the answers to made pictures")
    given = parser.parse_args(arguments)
    if not given.files and not given.self_test:
        parser.error("give some pictures, or --self-test")
    try:
        model = Model(root, num_threads=given.threads)
        return _self_test(model) if given.self_test else _classify(model, given)
    except AutoDLError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code


def _classify(model: Model, given: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    for file in given.files:
        try:
            picture = decode_image(Path(file).read_bytes())
        except (OSError, DatasetError) as error:
            rows.append({"file": file, "error": str(error).splitlines()[0]})
            continue
        answer = model([picture])[0]
        best = np.argsort(-answer)[: max(1, given.top_k)]
        rows.append({"file": file, "top": [{"class": model.classes[i], "probability": float(answer[i])} for i in best]})
    failed = [row for row in rows if "error" in row]
    if given.json:
        head = {"model": model.info["name"], "version": model.info["version"], "variant": model.variant}
        print(json.dumps({**head, "predictions": rows, "failed": len(failed)}, indent=1, ensure_ascii=False))  # noqa: T201
    else:
        for row in rows:
            shown = ", ".join(f"{t['class']} {t['probability']:.4f}" for t in row.get("top", ()))
            print(f"{row['file']}: {shown or row['error']}")  # noqa: T201
    return 2 if failed else 0


def _self_test(model: Model) -> int:
    model.verify()
    document = _json(model.file(SMOKE_JSON), SMOKE_JSON)
    difference, accepted = smoke_difference(document, model.variant, model)
    passed = difference <= accepted
    word = "passed" if passed else "FAILED"
    print(f"self-test {word}: every file is whole; answers differ by {difference:.2g}, {accepted:g} is accepted")  # noqa: T201
    return 0 if passed else 1
