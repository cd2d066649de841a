"""Pools, as layers."""

from jcnn import pool
from jcnn.geometry import IntLike, PaddingLike, Window, window
from jcnn.net.core import Net, Shape, layer
from jcnn.net.layers import window_name
from jcnn.rule import Rule


def max_pool(
    size: IntLike,
    *,
    stride: IntLike | None = None,
    padding: PaddingLike = "VALID",
    dilation: IntLike = 1,
    ceil_mode: bool = False,
    ties: str = "first",
) -> Net:
    """Maximum over windows; keywords as for `jcnn.max_pool`."""
    return _pool(pool.max_pool, size, stride, padding, ceil_mode, dilation=dilation, ties=ties)


def avg_pool(
    size: IntLike,
    *,
    stride: IntLike | None = None,
    padding: PaddingLike = "VALID",
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Net:
    """Mean over windows; keywords as for `jcnn.avg_pool`."""
    return _pool(pool.avg_pool, size, stride, padding, ceil_mode, count_include_pad=count_include_pad)


def lp_pool(
    size: IntLike,
    p: int | float,
    *,
    stride: IntLike | None = None,
    padding: PaddingLike = "VALID",
    ceil_mode: bool = False,
) -> Net:
    """p-norm of windows; keywords as for `jcnn.lp_pool`."""
    return _pool(pool.lp_pool, size, stride, padding, ceil_mode, p=p)


def _pool(rule: Rule, size: IntLike, stride, padding: PaddingLike, ceil_mode: bool, **config) -> Net:
    slides = {"padding": padding, "ceil_mode": ceil_mode}

    def over(shape: Shape) -> Window:
        step, dilation = size if stride is None else stride, config.get("dilation", 1)
        return window(rule.name, size, size=shape[:-1], stride=step, dilation=dilation, **slides)

    name = window_name(rule.name, size, stride=stride)
    config = {"window": size, "stride": stride, **slides, **config}
    return layer(rule, name=name, config=config, window=over)


def global_max_pool() -> Net:
    """Maximum over the image."""
    return layer(pool.global_max_pool, sees_all=True)


def global_avg_pool() -> Net:
    """Mean over the image."""
    return layer(pool.global_avg_pool, sees_all=True)


def adaptive_max_pool(output_size: int | tuple[int | None, ...]) -> Net:
    """Maximum over as many windows as `output_size` says, which depend on the size of the image."""
    return _adaptive(pool.adaptive_max_pool, output_size)


def adaptive_avg_pool(output_size: int | tuple[int | None, ...]) -> Net:
    """Mean over as many windows as `output_size` says, which depend on the size of the image."""
    return _adaptive(pool.adaptive_avg_pool, output_size)


def _adaptive(rule: Rule, output_size: int | tuple[int | None, ...]) -> Net:
    # Its windows have no common size and step, so the receptive field is said to be all of the image.
    each = (output_size,) if isinstance(output_size, int) else output_size
    name = f"{rule.name} {'x'.join('=' if m is None else str(m) for m in each)}"
    return layer(rule, name=name, config={"output_size": output_size}, sees_all=True)
