"""The page, used in a real browser."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autodl_ray.serve.api import create_app
from autodl_ray.serve.engine import Engine
from autodl_ray.serve.guard.keys import KeyRing, create_key
from tests.serve.browser import Browser, chromium
from tests.serve.live import serving
from tests.serve.tiny import picture


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One tab of headless Chromium."""
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, engine: Engine) -> Iterator[Browser]:
    """The page of a service without a key."""
    with serving(create_app(engine)) as url:
        browser.events.clear()
        browser.resize(1200, 800)
        browser.open(url)
        yield browser


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """A grey picture with a red corner at the bottom right: what speaks for red lies there."""
    pixels = np.full((90, 120, 3), 90, np.uint8)
    pixels[45:, 60:] = (250, 20, 20)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    file = tmp_path / "corner.png"
    file.write_bytes(buffer.getvalue())
    return file


def shot(browser: Browser, name: str) -> None:
    """Keep a picture of the page where ``AUTODL_SCREENSHOTS`` says, for people to look at."""
    if folder := os.environ.get("AUTODL_SCREENSHOTS"):
        browser.run("new Promise(done => setTimeout(done, 700))")
        browser.picture(Path(folder) / f"{name}.png")


def test_a_chosen_picture_is_classified_and_looked_into(page: Browser, red: Path) -> None:
    page.choose("#file", red)
    page.until("!document.querySelector('#found').hidden")
    assert page.run("document.querySelector('#top').textContent") == "red"
    assert page.run("document.querySelectorAll('#bars li').length") == 3
    page.until("parseFloat(document.querySelector('.bar i').style.width) > 40")
    assert "ms in the service" in page.run("document.querySelector('#facts').textContent")
    assert "version 0123456789ab" in page.run("document.querySelector('#facts').textContent")
    shot(page, "answer")
    page.run("document.querySelector('#where').click()")
    page.until("!document.querySelector('#heat').hidden")
    told = page.run("document.querySelector('#heat').getAttribute('aria-label')")
    assert told == "What speaks most for red lies at the bottom right of the picture."
    light = "(x, y) => [...document.querySelector('#heat').getContext('2d').getImageData(x, y, 1, 1).data][0]"
    assert page.run(f"({light})(100, 75)") > page.run(f"({light})(15, 15)") + 60
    shot(page, "heatmap")
    page.run("document.querySelector('#where').click()")
    assert page.run("document.querySelector('#heat').hidden && !document.querySelector('#preview').hidden")
    assert page.complaints() == []
    assert {u.split("/")[2] for u in page.requested() if u.startswith("http")} == {page.run("location.host")}


def test_a_dropped_and_a_pasted_picture(page: Browser) -> None:
    data = list(picture("blue"))
    made = f"new File([new Uint8Array({data})], 'b.png', {{type: 'image/png'}})"
    carry = f"const t = new DataTransfer(); t.items.add({made});"
    page.run(
        f"{{ {carry} dispatchEvent(new DragEvent('drop', {{dataTransfer: t, bubbles: true, cancelable: true}})) }}"
    )
    page.until("document.querySelector('#top').textContent === 'blue'")
    data = list(picture("green"))
    carry = carry.replace(made, f"new File([new Uint8Array({data})], 'g.png', {{type: 'image/png'}})")
    page.run(f"{{ {carry} dispatchEvent(new ClipboardEvent('paste', {{clipboardData: t}})) }}")
    page.until("document.querySelector('#top').textContent === 'green'")


def test_another_model_answers_when_it_is_chosen(page: Browser, red: Path) -> None:
    page.choose("#file", red)
    page.until("document.querySelector('#facts').textContent.includes('colours')")
    page.run("{ const s = document.querySelector('#models'); s.value = 1; s.dispatchEvent(new Event('change')) }")
    page.until("document.querySelector('#facts').textContent.includes('paints')")


def test_a_file_that_is_no_picture_says_why(page: Browser, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("<b>no picture</b>")
    page.choose("#file", notes)
    page.until("!document.querySelector('#problem').hidden")
    assert page.run("document.querySelector('#why').textContent").startswith("This is not a picture.")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_cut_off_on_a_phone(page: Browser, red: Path, dark: bool) -> None:
    page.resize(360, 740, phone=True, dark=dark)
    page.choose("#file", red)
    page.until("!document.querySelector('#found').hidden")
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert page.run("getComputedStyle(document.querySelector('#snap')).display") != "none"
    small = "[...document.querySelectorAll('button, select')].filter(e => e.offsetParent && e.offsetHeight < 44).length"
    assert page.run(small) == 0
    shot(page, f"phone-{'dark' if dark else 'light'}")


def test_everything_has_a_name_and_the_keyboard_reaches_it(page: Browser, red: Path) -> None:
    page.choose("#file", red)
    page.until("!document.querySelector('#found').hidden")
    nameless = """[...document.querySelectorAll('input:not([hidden]), button, select, img:not([hidden]), [role=img]')]
        .filter(e => e.offsetParent && !(e.getAttribute('aria-label') || e.alt || e.textContent.trim()
          || (e.labels && e.labels.length && e.labels[0].textContent.trim()))).map(e => e.id)"""
    assert page.run(nameless) == []
    page.run("document.querySelector('#where').focus()")
    assert page.run("document.activeElement.id") == "where"
    assert page.run("document.documentElement.lang") == "en"


def test_the_key_is_asked_for_and_kept_for_the_tab_only(
    browser: Browser, engine: Engine, tmp_path: Path, red: Path
) -> None:
    keys = tmp_path / "keys.json"
    key = create_key(keys, "browser")
    with serving(create_app(engine, keys=KeyRing(keys))) as url:
        browser.open(url)
        browser.until("!document.querySelector('#key').hidden")
        assert browser.run("document.querySelector('#model').textContent") == ""
        enter = "document.querySelector('#secret').value = {!r}; document.querySelector('#key').requestSubmit()"
        browser.run(enter.format("adl_wrong"))
        browser.until("document.querySelector('#wrong').textContent === 'This key was not accepted.'")
        browser.run(enter.format(key))
        browser.until("document.querySelector('#key').hidden")
        browser.choose("#file", red)
        browser.until("document.querySelector('#top').textContent === 'red'")
        browser.open(f"{url}/?again")
        browser.until("document.querySelector('#model').textContent.includes('version')")
        assert browser.run("document.querySelector('#key').hidden && !document.cookie && localStorage.length === 0")
        assert browser.run("sessionStorage.length") == 1
