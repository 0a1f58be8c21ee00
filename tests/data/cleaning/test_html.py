"""The page: whole, safe, and small however much was found."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from autodl_ray.data.cleaning.findings import KINDS, Report, finding
from autodl_ray.data.cleaning.html import render_html
from autodl_ray.data.cleaning.inspect import inspect
from autodl_ray.data.cleaning.subject import Subject
from autodl_ray.data.records import Box
from autodl_ray.runtime import Context
from tests.data.cleaning.makers import boxed, opened, save, scene, subject_of


def report_with(*found: object, source: str = "photos") -> Report:
    return Report(source, "test", 3, ("a",), {"train": 3}, found, notes=("A note.",))  # type: ignore[arg-type]


def test_the_page_shows_pictures_and_needs_nothing_from_outside(tmp_path: Path, context: Context) -> None:
    for number in range(12):
        save(scene(number), tmp_path / "photos" / ("cat" if number % 2 else "dog") / f"{number:02d}.jpg")
    save(Image.new("RGB", (160, 120), "grey"), tmp_path / "photos" / "cat" / "blank.png")
    (tmp_path / "photos" / "dog" / "zz.jpg").write_bytes((tmp_path / "photos" / "cat" / "01.jpg").read_bytes())
    subject = opened(tmp_path / "photos", context)
    page = render_html(inspect(subject, source="photos", context=context, fast=True), subject)
    assert page.count("data:image/jpeg;base64,") == 3  # the blank one, and both of the pair
    assert "identical pictures with different labels" in page
    assert "sure 1.00" in page
    assert not re.findall(r"https?://|<script|@import|url\(", page)
    assert "default-src 'none'" in page


def test_names_and_reasons_are_escaped() -> None:
    evil = "<script>alert(1)<script>"
    subject = subject_of({f"{evil}.png": ("x", evil)})
    page = render_html(report_with(finding("dark", [f"{evil}.png"], f"{evil} & more"), source=evil), subject)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;script&gt;") >= 4


def test_ten_thousand_findings_are_cut_and_it_is_said() -> None:
    subject = subject_of({"a.png": ("x", "a")})
    found = [finding("dark", [f"p/{i}.png"], "dark", sure=0.6) for i in range(10_000)]
    page = render_html(report_with(*found), subject)
    assert "Shown are the 60 surest of 10,000" in page
    assert page.count('<article class="card">') == 60
    assert len(page) < 200_000


def test_a_finding_of_many_pictures_names_some_and_counts_the_rest() -> None:
    subject = subject_of({"a.png": ("x", "a")})
    page = render_html(report_with(finding("unlisted", [f"p/{i}.png" for i in range(500)], "500")), subject)
    assert "… and 480 more" in page


def test_every_kind_can_be_shown(tmp_path: Path, context: Context) -> None:
    save(scene(1), tmp_path / "photos" / "a" / "1.png")
    save(scene(2), tmp_path / "photos" / "b" / "2.png")
    subject = opened(tmp_path / "photos", context)
    page = render_html(report_with(*(finding(kind, ["a/1.png"], "why") for kind in KINDS)), subject)
    assert all(info.title in page for info in KINDS.values())


def test_a_faulty_box_is_drawn(tmp_path: Path) -> None:
    save(Image.new("RGB", (100, 80), "white"), tmp_path / "p.png")
    plain = boxed({"p.png": [Box("a", 20, 20, 20, 60), Box("a", float("nan"), 1, 1e9, 5)]})
    subject = Subject(type(plain.listing)(tmp_path, "test", plain.listing.records), plain.facts)
    found = [finding("box_empty", ["p.png"], "no area", box=number) for number in (0, 1)]
    page = render_html(report_with(*found), subject)
    first, second = re.findall(r'src="(data:image/jpeg[^"]+)"', page)
    assert first != second


def test_nothing_found_says_so() -> None:
    assert "Nothing was found" in render_html(report_with(), subject_of({"a.png": ("x", "a")}))
