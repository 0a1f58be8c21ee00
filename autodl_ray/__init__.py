"""From a folder of data to a tuned, honestly evaluated, quantized model behind an HTTP endpoint."""
