"""One training loop and the two ways it is run: in the process of a trial, or in a group of workers."""
