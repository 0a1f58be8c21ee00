"""`autodl serve`: bundles behind HTTP, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from autodl_ray.cli.console import Console
from autodl_ray.errors import InputError, RunInterrupted, SpecError

if TYPE_CHECKING:
    from autodl_ray.serve.service import Service

__all__ = ["serve"]


def serve(
    context: typer.Context,
    bundles: Annotated[
        list[str],
        typer.Argument(help="Bundle folders, or NAME=FOLDER; the first answers /predict.", show_default=False),
    ],
    port: Annotated[int | None, typer.Option(help="Port to listen on.  [default: the bundle's, 8000]")] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on; other than loopback only with a key.  [default: 127.0.0.1]"),
    ] = None,
    num_replicas: Annotated[int | None, typer.Option(help="Exactly this many replicas.")] = None,
    min_replicas: Annotated[int | None, typer.Option(help="Replicas kept at all times.  [default: 1]")] = None,
    max_replicas: Annotated[int | None, typer.Option(help="Replicas under load.  [default: 2]")] = None,
    num_threads: Annotated[
        int | None, typer.Option(help="Calls a replica works on at a time.  [default: the CPUs by --max-replicas]")
    ] = None,
    latency_target: Annotated[
        str | None, typer.Option(help="95th percentile to choose batches and replicas for, e.g. 50ms.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with the API key (or $AUTODL_API_KEY): asked for as a bearer token.")
    ] = None,
    keys_file: Annotated[
        Path | None, typer.Option(envvar="AUTODL_KEYS_FILE", help="File of keys, by: autodl keys create NAME.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM): HTTPS instead of HTTP.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key of the certificate (PEM).")] = None,
    access_log: Annotated[Path | None, typer.Option(help="File that gets one JSON line a request.")] = None,
    record: Annotated[
        Path | None, typer.Option(help="Folder that gets some requests with their answers, as class folders.")
    ] = None,
    record_share: Annotated[
        float | None, typer.Option(help="Of the requests that --record keeps.  [default: 0.01]")
    ] = None,
    record_max_mb: Annotated[float | None, typer.Option(help="Size at which --record ends.  [default: 500]")] = None,
    rate_limit: Annotated[float | None, typer.Option(help="Requests a second of one key at one replica.")] = None,
    cors_origin: Annotated[list[str] | None, typer.Option(help="Origin whose pages may ask; repeat it.")] = None,
    allow_urls: Annotated[bool, typer.Option("--allow-urls", help="Fetch pictures from public addresses.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document when ready.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the libraries print.")] = False,
) -> None:
    """Serve one or several bundles over HTTP, with a page to try them, until Ctrl-C.

    Examples:

        autodl serve runs/photos/bundle

        autodl serve cats=runs/a/bundle dogs=runs/b/bundle --port 9000 --max-replicas 4

        curl --data-binary @a.jpg http://127.0.0.1:8000/predict
    """
    from autodl_ray.serve.bundles import check_bundles
    from autodl_ray.serve.service import start, stop
    from autodl_ray.serve.settings import read_api_key, with_options
    from autodl_ray.serve.tls import Tls

    console: Console = context.obj
    if record is None and (record_share is not None or record_max_mb is not None):
        raise InputError(
            "There is no folder to keep requests in.", seen="--record-share or --record-max-mb", hint="add --record DIR"
        )
    wanted = {
        "host": host,
        "port": port,
        "num_threads": num_threads,
        "latency_target_ms": None if latency_target is None else _milliseconds(latency_target),
        "rate_limit_per_s": rate_limit,
        "record_share": record_share,
        "record_max_mb": record_max_mb,
        "cors_origins": tuple(cors_origin) if cors_origin else None,
        "allow_urls": allow_urls or None,
    }
    replicas = {"num": num_replicas, "min": min_replicas, "max": max_replicas}
    spec = with_options(check_bundles(bundles)[0].settings, {**wanted, **_replicas(replicas)})
    key = read_api_key(api_key_file)
    tls = Tls.of(tls_cert, tls_key)
    log = Path(tempfile.gettempdir()) / f"autodl-serve-{os.getpid()}.log"
    console.log_to(log)
    signals = _Signals()

    def say(plan: str) -> None:
        signals.install()  # again: Ray has put a handler of its own on SIGTERM by now, which aborts the process
        console.print(f"  starting {plan} …")

    try:
        service = start(
            bundles,
            spec,
            api_key=key,
            keys_file=keys_file,
            access_log=access_log,
            record=record,
            tls=tls,
            say=say,
        )
    except KeyboardInterrupt as error:
        raise RunInterrupted("Stopped before the service was ready.") from error
    except InputError:  # explained by itself: the log adds nothing
        log.unlink(missing_ok=True)
        raise
    signals.ready = True
    _print(service, console, with_key=key is not None or keys_file is not None)
    if record is not None:
        console.print(f"  recording {100 * spec.record_share:.3g} % of the requests, up to {spec.record_max_mb:g} MB")
        console.print(f"  look at them: autodl data check {record / service.bundles[0].name}")
    while not signals.stop.wait(1.0):
        pass
    console.print("  stopping …")
    stop()
    console.print("stopped")
    log.unlink(missing_ok=True)


class _Signals:
    """Ctrl-C and SIGTERM: before the service is ready they abort, then they ask for the stop, the second time now."""

    def __init__(self) -> None:
        self.ready = False
        self.stop = threading.Event()
        self.install()

    def install(self) -> None:
        """Take the signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.ready:
            raise KeyboardInterrupt
        if self.stop.is_set():
            from autodl_ray.runtime.cluster import kill_ray_now

            kill_ray_now()
            os._exit(130)
        self.stop.set()


def _milliseconds(text: str) -> float:
    """Read ``50ms``, ``0.2s`` or ``50`` (milliseconds)."""
    number = text.strip().lower()
    factor = 1.0
    if number.endswith("ms"):
        number = number[:-2]
    elif number.endswith("s"):
        number, factor = number[:-1], 1000.0
    try:
        value = float(number) * factor
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise InputError("The latency is no time.", seen=text, accepted="e.g. 50ms or 0.2s")
    return value


def _replicas(given: dict[str, int | None]) -> dict[str, int | None]:
    """Turn ``--num-replicas`` into a minimum and a maximum."""
    if given["num"] is None:
        return {"min_replicas": given["min"], "max_replicas": given["max"]}
    if given["min"] is not None or given["max"] is not None:
        raise SpecError("--num-replicas stands alone.", hint="use --min-replicas and --max-replicas for a range")
    return {"min_replicas": given["num"], "max_replicas": given["num"]}


def _print(service: Service, console: Console, *, with_key: bool) -> None:
    models = [
        {"name": b.name, "version": b.version, "classes": len(b.classes), "bundle": str(b.folder)}
        for b in service.bundles
    ]
    console.result({"url": service.url, "models": models, "pid": os.getpid(), "replicas": service.plan.line})
    key = ' -H "Authorization: Bearer KEY"' if with_key else ""
    for model in models:
        console.print(f"  {model['name']} {model['version']}, {model['classes']} classes")
    console.print(f"serving at {service.url} after {service.seconds:.1f} s; Ctrl-C stops it")
    console.print(f"  page: {service.url}/")
    console.print(f"  curl{key} --data-binary @a.jpg {service.url}/predict")
