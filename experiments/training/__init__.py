"""The parts of `experiments.train`, one thing each: it puts them together."""
