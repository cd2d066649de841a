"""Compiler options that suit convolutional networks."""

import functools

import jax

CPU_OPTIONS = {
    # YNNPACK for matrix products and reductions, as by default, but not for convolutions: Eigen's run most
    # 3x3 shapes 1.6 to 2 times as fast.
    "xla_cpu_experimental_ynn_fusion_type": ("LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"),
}


@functools.cache
def compiler_options() -> dict[str, str]:
    """Options for `jax.jit(f, compiler_options=jcnn.compiler_options())` on the default backend.

    Returns:
        The options that this version of XLA accepts; empty where none help (GPU, TPU).
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return dict(CPU_OPTIONS)
