"""Trials and curves in files that others read, and plots that show every trial."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from autodl_ray.errors import InputError, StageError
from autodl_ray.pipeline.history import open_run
from autodl_ray.pipeline.history.plots import draw_parallel, draw_slices, save, write_plots
from autodl_ray.pipeline.history.tables import curve_rows, trial_rows, write_tables
from tests.pipeline.history.made import trials_of, write_run


def test_every_trial_and_every_epoch_is_in_the_tables(tmp_path: Path) -> None:
    write_run(tmp_path, "one", trials=trials_of(8))
    run = open_run(tmp_path, "one")
    trials, curves = trial_rows(run), curve_rows(run)
    assert len(trials) == 9  # eight of the sweep and the training
    assert [row["rank"] for row in trials[:8]] == list(range(1, 9))
    assert len(curves) == 6 * 3 + 2 * 1 + 3
    assert {"run", "sweep", "trial", "epoch", "accuracy", "loss"} <= set(curves[0])


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
def test_the_files_say_what_the_rows_say(tmp_path: Path, kind: str) -> None:
    write_run(tmp_path, "one", trials=trials_of(8))
    run = open_run(tmp_path, "one")
    files = write_tables(run, tmp_path / "out" / f"t.{kind}")
    wanted = trial_rows(run)
    if kind == "json":
        assert [f.name for f in files] == ["t.json"]
        document = json.loads(files[0].read_text())
        assert (document["trials"], document["curves"]) == (wanted, curve_rows(run))
        return
    assert [f.name for f in files] == [f"t.{kind}", f"t-curves.{kind}"]
    if kind == "csv":
        with files[0].open(newline="") as stream:
            read = list(csv.DictReader(stream))
        assert [float(row["value"]) for row in read] == [row["value"] for row in wanted]
        return
    import pyarrow.parquet as pq

    table = pq.read_table(files[0])
    assert table.column("value").to_pylist() == [row["value"] for row in wanted]
    assert table.column("param.momentum").to_pylist() == [row.get("param.momentum") for row in wanted]
    assert pq.read_table(files[1]).num_rows == len(curve_rows(run))


def test_another_ending_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "one", trials=trials_of(4))
    with pytest.raises(InputError) as found:
        write_tables(open_run(tmp_path, "one"), tmp_path / "t.xlsx")
    assert found.value.accepted == ".csv, .parquet, .json"


def test_the_plots_are_drawn_as_png_and_svg(tmp_path: Path) -> None:
    write_run(tmp_path, "one", trials=trials_of(12))
    files, notes = write_plots(open_run(tmp_path, "one"), tmp_path / "plots")
    assert notes == []
    names = {f.name for f in files}
    assert names == {f"{n}.{k}" for n in ("history", "parallel", "slices", "importance") for k in ("png", "svg")}
    for file in files:
        if file.suffix == ".png":
            with Image.open(file) as picture:
                assert picture.width > 400
        else:
            assert "<svg" in file.read_text()


def test_a_setting_that_a_trial_does_not_have_breaks_its_line(tmp_path: Path) -> None:
    trials = [{"a": 0.1, "b": 1, "c": 3.0}, {"a": 0.2, "c": 4.0}, {"a": 0.3, "b": 2, "c": 5.0}]
    write_run(tmp_path, "one", trials=[{"lr": 0.01, **t} for t in trials])
    sweep = open_run(tmp_path, "one").sweeps["sweep"]
    figure = draw_parallel(sweep)
    assert figure is not None
    lines = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert len(lines) == 3
    assert sum(any(y != y for y in line) for line in lines) == 1
    slices = draw_slices(sweep)
    assert slices is not None
    assert [axes.get_xlabel() for axes in slices.axes if axes.get_visible()] == ["a", "b", "c", "lr"]
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        save(slices, tmp_path / "x.bmp")


def test_a_run_without_trials_has_nothing_to_draw(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "one")
    (folder / "train.journal.jsonl").unlink()
    with pytest.raises(StageError, match="no trial with a value"):
        write_plots(open_run(tmp_path, "one"), tmp_path / "plots")
