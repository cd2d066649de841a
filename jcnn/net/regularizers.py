"""Layers that are noise in training, which then needs a `key`, and the identity in inference."""

from jcnn import check, regularize
from jcnn.net.core import Net
from jcnn.rule import Rule


def dropout(rate: float, *, per_channel: bool = False) -> Net:
    """Dropout of values, or of whole channels of an image."""
    name = f"dropout {rate:g}" + ", per channel" * per_channel
    return _noise(regularize.dropout, name, {"rate": rate, "per_channel": per_channel})


def drop_path(rate: float) -> Net:
    """Dropout of whole examples: stochastic depth, at the end of a residual block's body.

    Huang et al. 2016, arXiv:1603.09382; there with a rate that grows linearly from 0 with depth.
    """
    return _noise(regularize.drop_path, f"drop_path {rate:g}", {"rate": rate})


def _noise(rule: Rule, name: str, config: dict) -> Net:
    def apply(params, state, x, *, train, key=None):
        return (rule(x, _needed(key), **config) if train else x), state

    def fwd(params, state, x, *, train, key=None):
        y, res = rule.fwd(x, _needed(key), **config) if train else (x, None)
        return (y, state), res

    def bwd(res, dy):
        return {}, dy if res is None else rule.bwd(res, dy)[0]

    def _needed(key):
        if key is None:
            expected = "a PRNG key: apply(..., train=True, key=key)"
            check.fail(f"net.{rule.name}", "key", None, expected, TypeError)
        return key

    def rebuild(other: Rule) -> Net:
        return _noise(other, name, config)

    about = {"out_shape": lambda shape: shape, "rule": rule, "rebuild": rebuild}
    return Net(name, lambda key, shape: ({}, {}), apply, fwd, bwd, **about)
