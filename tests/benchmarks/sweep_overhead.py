"""What a sweep costs beside bare Optuna: whole processes, the same small net, pictures, epochs and early stopping.

    python tests/benchmarks/sweep_overhead.py [--trials 16 64 256] [--repeats 1] [--search random]

Prints one JSON document. Each side runs in a fresh process that reads the pictures from a folder, and is timed from
its start to its end, imports and Ray included. The net is linear on 13 × 13 px digits (5,080 parameters), 1,500
pictures for training and 297 for validation, at most 20 epochs, halving at 1, 3 and 9 epochs by 3. Goals for the ratio
of whole processes at 16, 64 and 256 trials: 2.5, 2.0 and 1.0 (both cores work; Optuna uses one).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPOCHS, BATCH, SIDE = 20, 32, 13
TRAIN, SEED = 1500, 0
LOW, HIGH = 3e-4, 3e-2
DECAY_LOW, DECAY_HIGH = 1e-4, 0.2


def ours(folder: Path, trials: int, search: str) -> dict[str, object]:
    """Run the sweep through ``tune.run``: Ray Tune, journal, checkpoints and all."""
    from autodl_ray.runtime.cluster import ensure_ray, start_ray_in_background, stop_ray

    store_folder = folder / "store"
    start_ray_in_background(store_folder, num_cpus=2, num_gpus=0)
    from autodl_ray import tune
    from autodl_ray.artifacts import Store, TrainSamples, ValSamples
    from autodl_ray.data.stream import StreamSource
    from autodl_ray.images import Preprocess
    from autodl_ray.runtime import Budget, Context, SilentProgress, StopFlag
    from autodl_ray.spec import Float, TrainSpec, TuneSpec

    marks = {"imports": time.time()}
    paths, labels, ids, classes = pictures(folder / "digits")
    train = TrainSamples(folder / "digits", ids[:TRAIN], paths[:TRAIN], labels[:TRAIN], classes)
    val = ValSamples(folder / "digits", ids[TRAIN:], paths[TRAIN:], labels[TRAIN:], classes)
    ensure_ray()
    marks["ray"] = time.time()
    import ray

    before = ray.available_resources()
    preprocess = Preprocess(size=SIDE, fit="stretch", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    source = StreamSource.make(train, val, preprocess, seed=SEED)
    marks["data"] = time.time()
    store = Store(store_folder)
    context = Context(store, "bench", SEED, Budget(3600.0), SilentProgress(), StopFlag(folder / "stop"))
    inputs = tune.SweepInputs(
        base=TrainSpec(batch_size=BATCH, lr=3e-3, dropout=0.0, label_smoothing=0.0, augment="none", precision="32"),
        model="pixels",
        preprocess=preprocess,
        weights="none",
        num_classes=10,
        source=source,
        num_samples=trials,
        epochs=EPOCHS,
        param_space={
            "lr": Float(low=LOW, high=HIGH, log=True),
            "weight_decay": Float(low=DECAY_LOW, high=DECAY_HIGH, log=True),
        },
    )
    sweep = tune.run(
        TuneSpec(search=search, scheduler="asha", num_samples=trials), inputs, key="sweep", context=context
    )
    marks["sweep"] = time.time()
    del source, inputs
    after = ray.available_resources()
    stop_ray()
    marks["stopped"] = time.time()
    assert sweep.best is not None
    return {
        "trials": len(sweep.trials),
        "epochs": sum(t.epochs for t in sweep.trials),
        "best": sweep.best.metrics["accuracy"],
        "marks": marks,
        "cpus_before_after": [before["CPU"], after["CPU"]],
    }


def bare(folder: Path, trials: int, search: str) -> dict[str, object]:
    """Run the same search with Optuna and a plain PyTorch loop in one process."""
    import numpy as np
    import optuna
    import torch
    from PIL import Image
    from torch.nn import functional

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)  # faster than two for so small a net, on an idle machine too
    paths, labels, _, _ = pictures(folder / "digits")
    stack = [
        np.asarray(Image.open(folder / "digits" / p).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        for p in paths
    ]
    images = (torch.from_numpy(np.stack(stack)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    targets = torch.from_numpy(labels)
    epochs = 0

    def objective(trial: optuna.Trial) -> float:
        nonlocal epochs
        torch.manual_seed(SEED)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE * SIDE, 10))
        lr = trial.suggest_float("lr", LOW, HIGH, log=True)
        decay = trial.suggest_float("weight_decay", DECAY_LOW, DECAY_HIGH, log=True)
        optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=decay)
        steps = EPOCHS * -(-TRAIN // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
        best = 0.0
        for epoch in range(1, EPOCHS + 1):
            order = torch.randperm(TRAIN)
            net.train()
            for first in range(0, TRAIN, BATCH):
                chosen = order[first : first + BATCH]
                loss = functional.cross_entropy(net(images[chosen]), targets[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            net.eval()
            with torch.no_grad():
                best = max(best, float((net(images[TRAIN:]).argmax(1) == targets[TRAIN:]).float().mean()))
            epochs += 1
            trial.report(best, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return best

    sampler = optuna.samplers.RandomSampler(SEED) if search == "random" else optuna.samplers.TPESampler(seed=SEED)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=trials)
    return {"trials": len(study.trials), "epochs": epochs, "best": study.best_value}


def pictures(folder: Path) -> tuple:  # type: ignore[type-arg]
    """List the digits in the order of the set: paths, labels, ids, classes."""
    import numpy as np

    files = sorted(folder.glob("*/*.png"), key=lambda p: p.name)
    classes = tuple(sorted(p.name for p in folder.iterdir()))
    labels = np.array([classes.index(p.parent.name) for p in files], dtype=np.int64)
    return tuple(p.relative_to(folder).as_posix() for p in files), labels, np.arange(len(files)), classes


def measure(side: str, digits: Path, trials: int, search: str) -> dict[str, object]:
    """Run one side in a fresh process and time it from outside."""
    import psutil

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "digits").symlink_to(digits)
        command = [sys.executable, __file__, "--side", side, "--folder", name, "--trials", str(trials)]
        started = time.time()
        done = subprocess.run([*command, "--search", search], capture_output=True, text=True, timeout=900)
        seconds = time.time() - started
        if done.returncode:
            raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
        result = json.loads(done.stdout.splitlines()[-1])
        leaked = [p.pid for p in psutil.process_iter(["cmdline"]) if name in " ".join(p.info["cmdline"] or [])]
    marks = {k: round(v - started, 2) for k, v in result.pop("marks", {}).items()}
    return {"seconds": round(seconds, 2), **result, "leaked": leaked, **({"marks": marks} if marks else {})}


def main() -> None:
    """Compare both sides."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--search", choices=("random", "tpe"), default="random")
    parser.add_argument("--side", choices=("ours", "bare"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        run = ours if given.side == "ours" else bare
        print(json.dumps(run(given.folder, given.trials[0], given.search)))
        return
    from autodl_ray.data.samples import write_digits

    with tempfile.TemporaryDirectory() as name:
        digits = write_digits(Path(name) / "digits")
        rows: dict[str, dict[str, object]] = {}
        for trials in given.trials:
            runs = [
                {side: measure(side, digits, trials, given.search) for side in ("bare", "ours")}
                for _ in range(given.repeats)
            ]
            rows[str(trials)] = {
                "ratio": round(statistics.median(r["ours"]["seconds"] / r["bare"]["seconds"] for r in runs), 3),
                "runs": runs,
            }
    document: dict[str, object] = {"search": given.search, "cpus": os.cpu_count(), "trials": rows}
    if len(given.trials) > 1:
        few, many = min(given.trials), max(given.trials)
        seconds = {
            n: statistics.median(r["ours"]["seconds"] for r in rows[str(n)]["runs"])  # type: ignore[attr-defined]
            for n in (few, many)
        }
        document["seconds_per_further_trial"] = round((seconds[many] - seconds[few]) / (many - few), 4)
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
