"""Prove a derivation, or say what is wrong with it.

    report = verify_vjp(rule, *args, **static)   # a Rule, a jax.custom_vjp function or a triple (f, fwd, bwd)
    print(report)
    assert_vjp(rule, *args, **static)            # in a test
    for broken in mutate(rule, *args): ...       # rules with one error each, to measure a checker by

`python -m jcnn.verify` checks every rule of jcnn, `python -m jcnn.verify package.module:rule` yours.
"""

from jcnn.verify.checker import assert_vjp as assert_vjp, verify_vjp as verify_vjp
from jcnn.verify.expect import Expect as Expect
from jcnn.verify.mutate import equivalent as equivalent, mutate as mutate
from jcnn.verify.report import Finding as Finding, Report as Report, Status as Status
