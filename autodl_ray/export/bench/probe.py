"""One model file in a process of its own, with onnxruntime and numpy alone: its time and its memory.

Run by its path, so that nothing else is imported.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time

__all__ = ["main"]


def main(path: str, height: int, width: int, seconds: float) -> None:
    """Answer single pictures on one thread for so long, and print one line of JSON."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # a third of the memory, and no slower for single pictures
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    picture = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    name = session.get_inputs()[0].name
    session.run(None, {name: picture})
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        session.run(None, {name: picture})
        times.append(time.perf_counter() - start)
    sys.stdout.write(json.dumps({"p50_ms": 1e3 * statistics.median(times), "peak_mb": _peak_mb()}) + "\n")


def _peak_mb() -> float:
    """Largest resident memory so far, in MB.

    Linux hands ``ru_maxrss`` of the parent on to the child; ``VmHWM`` is of this process alone.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
