"""What differs by task: targets, scores and the decoding of outputs."""
