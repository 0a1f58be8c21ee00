"""The policies of a specification: refused early, and part of what a run is."""

from __future__ import annotations

from pathlib import Path

import pytest

from autodl_ray.errors import SpecError, StoreError
from autodl_ray.pipeline.policies import read_policies
from autodl_ray.pipeline.record import RunRecord, identity_digest
from autodl_ray.spec import ExperimentSpec, parse_spec


def spec_with(*searched: str, augment: str = "auto") -> ExperimentSpec:
    space = {"augment": {"type": "choice", "values": list(searched)}} if searched else None
    return parse_spec({"data": {"path": "photos"}, "train": {"augment": augment}, "tune": {"param_space": space}})


def test_every_policy_that_is_named_is_read(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("policies: [{transform: {name: Invert}}]")
    assert read_policies(spec_with()) == {}
    assert list(read_policies(spec_with("light", str(file), augment="augmix"))) == ["augmix", "light", str(file)]


def test_a_file_with_mistakes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("policies: [{transform: {name: Invrt}}]")
    for spec in (spec_with(augment=str(file)), spec_with("light", str(file))):
        with pytest.raises(SpecError, match="unknown operation 'Invrt'"):
            read_policies(spec)
    with pytest.raises(SpecError, match="neither a preset nor a file"):
        read_policies(spec_with(augment="missing.yaml"))


def test_another_policy_in_the_file_is_another_run(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("policies: [{transform: {name: Invert}}]")
    spec = spec_with(augment=str(file))
    first = identity_digest(spec, "d")
    file.write_text("# a remark\npolicies:\n- transform: {name: Invert}\n")
    assert identity_digest(spec, "d") == first
    file.write_text("policies: [{transform: {name: Invert}, probability: 0.5}]")
    assert identity_digest(spec, "d") != first


def test_a_run_of_that_name_with_another_policy_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("policies: [{transform: {name: Invert}}]")
    spec = spec_with(augment=str(file))
    RunRecord(tmp_path).begin(spec, "d")
    RunRecord(tmp_path).begin(spec, "d")
    before = (tmp_path / "run.json").read_bytes()
    file.write_text("policies: [{transform: {name: Grayscale}}]")
    with pytest.raises(StoreError, match="A different run has this name") as caught:
        RunRecord(tmp_path).begin(spec, "d")
    assert "p.yaml: " in str(caught.value)
    assert (tmp_path / "run.json").read_bytes() == before
