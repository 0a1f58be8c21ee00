"""Every format answers like the network on pictures of any size, in any batch, and comes out the same twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from autodl_ray.artifacts import Artifact, ValSamples
from autodl_ray.artifacts.bundle import open_bundle
from autodl_ray.errors import InputError, MissingExtraError, StageError
from autodl_ray.export import CandidateInputs, Formats, format_source, write_bundle
from autodl_ray.export.documents import preprocess_document
from autodl_ray.export.formats import FORMATS, FormatSource, make_format, make_formats
from autodl_ray.export.formats.openvino import open_openvino
from autodl_ray.export.formats.tensorrt import open_core, symmetric, without_preprocess
from autodl_ray.export.formats.torchscript import open_torchscript, scripted
from autodl_ray.export.graph import with_preprocess
from autodl_ray.export.onnx import export_core
from autodl_ray.export.parity import BATCHES, check_parity, network_answers
from autodl_ray.export.runner.preprocess import to_pixels
from autodl_ray.images import Fit, Preprocess
from autodl_ray.models.preprocess import preprocess_tensor
from autodl_ray.seeding import rng_for
from autodl_ray.spec import ServeSpec
from tests.export.test_graph import AWKWARD, picture
from tests.export.tiny import CLASSES, context_in


@pytest.fixture(scope="module")
def source(candidate: Artifact) -> FormatSource:
    return format_source(candidate, open_bundle(candidate.path)[1])


@pytest.fixture(scope="module")
def made(source: FormatSource, inputs: CandidateInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    make_formats(list(FORMATS), source, folder, samples=inputs.val)
    return folder


def test_every_format_is_held_against_the_network(
    source: FormatSource, inputs: CandidateInputs, made: Path, tmp_path: Path
) -> None:
    records, parity = make_formats(list(FORMATS), source, tmp_path, samples=inputs.val)
    assert set(records) == set(FORMATS)
    for name, record in records.items():
        assert (record.pictures, record.agreement) == (60, 1.0), name
        assert 0 < record.max_difference < 1e-5, name
        assert tuple(parity[name].by_batch) == BATCHES
        assert record.ran_here == (name != "tensorrt")
        assert record.bytes == sum(p.stat().st_size for p in (tmp_path / name).iterdir())
    assert 0.7 < parity["tensorrt int8"].agreement <= 1.0
    assert "int8 names the same class" in records["tensorrt"].note
    for name in records:
        for file in (tmp_path / name).iterdir():
            assert file.read_bytes() == (made / name / file.name).read_bytes(), f"{name}/{file.name} differs"


@pytest.mark.parametrize("fit", get_args(Fit))
def test_pictures_of_awkward_sizes(source: FormatSource, fit: Fit, tmp_path: Path) -> None:
    rule = replace(source.preprocess, fit=fit)
    exported, _ = export_core(source.model, rule.size)
    fp32 = with_preprocess(exported, rule, 3).SerializeToString()
    core = without_preprocess(onnx.load_from_string(fp32), rule)
    again = replace(source, preprocess=rule, fp32=fp32)
    for name in ("torchscript", "openvino"):
        (tmp_path / name).mkdir()
        make_format(name, again, tmp_path / name)
    runs = {
        "torchscript": open_torchscript(tmp_path / "torchscript" / "model.ts"),
        "openvino": open_openvino(tmp_path / "openvino" / "model.xml", num_threads=1),
        "core": open_core(core.SerializeToString(), rule),
    }
    for height, width in AWKWARD:
        batch = np.stack([picture(height, width), picture(height, width)[::-1]])
        wanted = network_answers(source.model, list(batch), rule)
        for name, run in runs.items():
            np.testing.assert_allclose(run(batch), wanted, atol=1e-4, err_msg=f"{name} {height} x {width}")
            np.testing.assert_allclose(run(batch[:1]), wanted[:1], atol=1e-4, err_msg=f"{name} {height} x {width}")


@pytest.mark.parametrize("fit", get_args(Fit))
@pytest.mark.parametrize(("height", "width"), AWKWARD)
def test_the_reference_in_numpy_and_pillow(fit: Fit, height: int, width: int) -> None:
    rule = Preprocess(32, fit, (0.4, 0.5, 0.6), (0.25, 0.3, 0.2))
    document = json.loads(json.dumps(preprocess_document(rule)))
    seen = to_pixels(picture(height, width), document)
    assert seen.shape == (3, 32, 32)
    np.testing.assert_allclose(seen, preprocess_tensor(picture(height, width), rule), atol=1e-4)


def test_int8_for_tensorrt_is_symmetric_and_answers_alike(source: FormatSource, inputs: CandidateInputs) -> None:
    assert source.int8 is not None
    core = without_preprocess(onnx.load_from_string(source.int8), source.preprocess)
    whole = open_core(core.SerializeToString(), source.preprocess)
    changed = open_core(symmetric(core).SerializeToString(), source.preprocess)
    pictures = [np.asarray(Image.open(inputs.val.root / p)) for p in inputs.val.paths[:24]]
    rows = [(whole(p[None])[0], changed(p[None])[0]) for p in pictures]
    assert np.mean([a.argmax() == b.argmax() for a, b in rows]) > 0.9
    assert np.mean([np.abs(a - b).mean() for a, b in rows]) < 0.1


def test_torchscript_is_the_same_from_another_process(made: Path, candidate: Artifact, tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from autodl_ray.artifacts.bundle import open_bundle\n"
        "from autodl_ray.export import format_source; from autodl_ray.export.formats import make_format\n"
        "torch.jit.script(torch.nn.ReLU())\n"
        "make_format('torchscript', format_source(*open_bundle(sys.argv[1])), Path(sys.argv[2]))"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(candidate.path), str(tmp_path)], check=True, timeout=120
    )
    raw = (tmp_path / "model.ts").read_bytes()
    assert raw == (made / "torchscript" / "model.ts").read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in raw  # no path of this machine


class _Branching(torch.nn.Module):
    """A loop over the batch: what a trace with two pictures records is wrong for three."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.head(x.mean(dim=(2, 3)))
        if x.shape[0] != 2:
            rows = rows + 1.0
        return rows


def test_torchscript_is_compiled_where_a_trace_is_wrong() -> None:
    core, how = scripted(_Branching().eval(), 8)
    assert how == "script"
    assert core(torch.zeros(2, 3, 8, 8)).shape == (2, 3)


def test_a_network_that_torchscript_cannot_hold() -> None:
    class Hopeless(_Branching):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = self.head(torch.as_tensor(x.detach().numpy().mean(axis=(2, 3))))
            return rows + float(os.getpid() % 7) if x.shape[0] != 2 else rows

    with pytest.raises(StageError, match="could not be written as TorchScript") as caught:
        scripted(Hopeless().eval(), 8)
    assert "trace: ValueError: logits of shape (2, 3) instead of (1, 3)" in str(caught.value)
    assert "script: " in str(caught.value)


def test_a_format_that_answers_otherwise_is_refused_with_its_layer(
    source: FormatSource, inputs: CandidateInputs, tmp_path: Path
) -> None:
    wrong = replace(source, fp32=_with_another_head(source.fp32))
    with pytest.raises(StageError, match="The model exported to openvino does not answer like the trained one") as one:
        make_formats(["openvino"], wrong, tmp_path, samples=inputs.val)
    assert "first layer that differs: head (Linear): differs by" in str(one.value)
    with pytest.raises(StageError, match="exported to tensorrt") as two:
        make_formats(["tensorrt"], wrong, tmp_path, samples=inputs.val)
    assert "first layer that differs: head (Linear): differs by" in str(two.value)


def _with_another_head(fp32: bytes) -> bytes:
    model = onnx.load_from_string(fp32)
    head = next(node for node in model.graph.node if node.op_type == "Gemm")
    weights = next(t for t in model.graph.initializer if t.name == head.input[1])
    weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights)[::-1].copy(), weights.name))
    return model.SerializeToString()


def test_unknown_formats_and_missing_packages(
    source: FormatSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="There is no such format") as caught:
        make_format("openvin", source, tmp_path)
    assert "did you mean 'openvino'" in str(caught.value)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match="needs the package openvino") as missing:
        make_format("openvino", source, tmp_path)
    assert "pip install 'autodl_ray[openvino]'" in str(missing.value)


@pytest.fixture
def turned(tmp_path: Path) -> ValSamples:
    """Photos of every EXIF orientation, none of them square."""
    rng = rng_for(0, "turned")
    paths = []
    for orientation in range(1, 9):
        image = Image.fromarray(rng.integers(0, 256, (19, 41, 3), dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = orientation
        paths.append(f"{orientation}.jpg")
        image.save(tmp_path / paths[-1], exif=exif, quality=95)
    return ValSamples(tmp_path, np.arange(8), tuple(paths), np.zeros(8, dtype=np.int64), CLASSES)


def test_parity_reads_turned_pictures_and_fills_batches(
    source: FormatSource, turned: ValSamples, tmp_path: Path
) -> None:
    record = check_parity(source.model, source.fp32, preprocess=source.preprocess, samples=turned)
    assert (record.pictures, record.non_square) == (8, 8)
    assert tuple(record.by_batch) == (1, 3, 32)
    assert record.max_difference < 1e-5
    records, _ = make_formats(["torchscript", "openvino"], source, tmp_path / "out", samples=turned)
    assert all(r.agreement == 1.0 and r.pictures == 8 for r in records.values())


def test_a_file_that_mixes_up_a_batch_of_32_is_found(source: FormatSource, turned: ValSamples) -> None:
    from autodl_ray.export.parity import Checked, check_files, run_onnx

    right = run_onnx(source.fp32)

    def wrong(batch: np.ndarray) -> np.ndarray:
        rows = right(batch)
        return rows[:, ::-1].copy() if len(batch) > 8 else rows

    with pytest.raises(StageError, match="does not answer like the trained one") as caught:
        check_files(source.model, {"onnx": Checked(wrong)}, preprocess=source.preprocess, samples=turned)
    assert "(in batches of 32)" in str(caught.value)
    assert "the layer could not be named" in str(caught.value)


def test_a_bundle_with_formats(candidate: Artifact, inputs: CandidateInputs, tmp_path: Path) -> None:
    context = context_in(tmp_path)
    plain = write_bundle(candidate, report=None, serve=ServeSpec(), context=context)
    assert open_bundle(plain.path)[1].formats == {}
    wanted = Formats(("torchscript", "tensorrt"), inputs.val)
    bundle = write_bundle(candidate, report=None, serve=ServeSpec(), context=context, formats=wanted)
    _, info = open_bundle(bundle.path)
    assert bundle.id != plain.id
    assert set(info.formats) == {"torchscript", "tensorrt"}
    assert "formats/tensorrt/build.sh" in bundle.manifest.files
    parity = json.loads(bundle.file("parity.json").read_text())
    assert parity["formats"]["torchscript"]["by_batch"]["32"]["agreement"] == 1.0
    card = bundle.file("MODEL_CARD.md").read_text()
    assert "| torchscript | 60 | 1.0000 |" in card
    assert "(not run here)" in card
    assert write_bundle(candidate, report=None, serve=ServeSpec(), context=context, formats=wanted).id == bundle.id
    assert not [name for name in bundle.manifest.files if name.endswith((".pkl", ".pickle", ".pt"))]


def test_no_bundle_where_a_format_fails(
    candidate: Artifact, inputs: CandidateInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    context = context_in(tmp_path)
    with pytest.raises(MissingExtraError):
        write_bundle(
            candidate, report=None, serve=ServeSpec(), context=context, formats=Formats(("openvino",), inputs.val)
        )
    assert context.store.find("shapes/bundle") is None
