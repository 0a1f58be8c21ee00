"""The metrics of a training by name, with what they mean and their unit: the columns of every file and chart."""

from __future__ import annotations

from types import MappingProxyType

__all__ = ["COLUMNS", "is_of_machine", "meaning"]

_OF_MACHINE = ("cpu_", "rss_", "memory_", "object_store_", "disk_", "gpu_")

COLUMNS = MappingProxyType(
    {
        "step": "optimizer steps done",
        "epoch": "from 1",
        "time": "Unix time, s",
        "loss": "of steps: training loss as it is minimised, mean since the row before; of epochs: validation loss",
        "accuracy": "of steps: share of training samples that were right; of epochs: validation accuracy",
        "train_loss": "mean training loss of the epoch",
        "train_accuracy": "share of the epoch's training samples that were right",
        "macro_f1": "validation, mean F1 of the classes",
        "top5": "validation, share of samples whose class is among the 5 likeliest (fewer classes: among all)",
        "balanced_accuracy": "validation, mean recall of the classes",
        "recall": "validation, recall of each class in the order of the classes; null: no sample of it",
        "recall_min": "validation, recall of the class with the lowest",
        "lr": "learning rate of the first group; lr/NAME: of the group",
        "grad_norm": "L2 norm of the gradient before clipping",
        "weight_norm": "L2 norm of the trained weights",
        "update_ratio": "L2 norm of a step's change of the weights over weight_norm",
        "loss_scale": "of the gradient scaler",
        "skipped_steps": "updates that the scaler skipped since the row before",
        "images_per_s": "samples a second over all workers",
        "data_wait": "share of the time spent waiting for batches",
        "step_s": "seconds a step, waiting included",
        "epoch_s": "seconds of the epoch without validation",
        "eta_s": "seconds until the training is expected to end",
        "cpu_percent": "of this process; 100 is one core",
        "cpu_machine_percent": "of all cores of the machine",
        "rss_mb": "resident memory of this process, MB",
        "memory_free_mb": "memory that is available on the machine, MB",
        "object_store_mb": "in use in the object stores of the Ray cluster, MB",
        "disk_free_gb": "on the volume of the training, GB",
        "disk_used_mb": "by the folder of the training, MB",
        "gpu_percent": "utilisation of the GPU",
        "gpu_memory_mb": "in use on the GPU, by all processes, MB",
        "gpu_power_w": "drawn by the GPU, W",
        "gpu_temperature_c": "of the GPU, °C",
    }
)
"""Name → meaning. What a training does not know is absent."""


def meaning(name: str) -> str:
    """Return what a column means, also of ``lr/head``; empty for a name of the loop's own."""
    return COLUMNS.get(name) or COLUMNS.get(name.partition("/")[0], "")


def is_of_machine(name: str) -> bool:
    """Whether a column tells of the machine and not of the learning."""
    return name.startswith(_OF_MACHINE)
