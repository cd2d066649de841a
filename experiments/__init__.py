"""Research scripts on top of jcnn, each run as `python -m experiments.NAME`."""
