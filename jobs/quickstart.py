"""The main job on real photos: train a model within two minutes, serve it, ask it, stop.

make quickstart
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx

HERE = Path(__file__).resolve().parent
PHOTO = HERE / "samples" / "photos" / "glass"


def main() -> int:
    """Run, serve, ask, stop; the exit code is that of the first step that failed."""
    started = time.monotonic()
    autodl = [sys.executable, "-m", "autodl_ray"]
    trained = subprocess.run([*autodl, "run", "--spec", str(HERE / "photos.yaml")], cwd=HERE.parent, check=False)
    if trained.returncode != 0:
        return trained.returncode
    server = subprocess.Popen(
        [*autodl, "serve", "runs/quickstart/bundle", "--json"], cwd=HERE.parent, stdout=subprocess.PIPE, text=True
    )
    try:
        url = _url(server)
        photo = sorted(PHOTO.iterdir())[0]
        answer = httpx.post(f"{url}/predict", content=photo.read_bytes(), timeout=30).raise_for_status().json()
        best = answer["predictions"][0]
        _say(f"POST {url}/predict  ({photo.name}) → {best['class']} with probability {best['probability']:.3f}")
        _say(f"from nothing to a served answer in {time.monotonic() - started:.0f} s")
    finally:
        server.terminate()
        server.wait(timeout=30)
    return 0


def _url(server: subprocess.Popen[str]) -> str:
    import json

    assert server.stdout is not None
    text = ""
    for line in server.stdout:
        text += line
        if line.rstrip() == "}":
            return str(json.loads(text)["url"])
    raise SystemExit(f"the server did not start (exit code {server.wait()})")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
