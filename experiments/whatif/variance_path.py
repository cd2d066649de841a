"""Batch norm whose backward forgets a path.

Question: what does a wrong derivation of batch norm cost in accuracy, and does a gradient checker name it?

Mathematics.  With xhat = (x - mean) rstd, y = gamma xhat + beta, and sums over the m positions of a batch,
dbeta = sum(dy), dgamma = sum(dy xhat), the backward has three terms (see `jcnn/norm/batch.py`):

    dx = gamma rstd (dy - dbeta / m - xhat dgamma / m)
                          through mean  through variance

Who takes mean or variance for a constant drops the term behind it.  The true backward makes dx orthogonal to
1 and to xhat (but for eps): it takes out of dy what would shift or scale all of x, to which y is blind.  The
net without batch norm is otherwise the same, from other initial weights.

Command: `python -m experiments.whatif.variance_path`, and with `--lr 2e-2`

Result: test accuracy on Fashion-MNIST in percent, and less that of "forgets none" with the same seed, mean ±
standard deviation (n = 3), at learning rates of 0.002, the default, and 0.02.  `jcnn.verify` calls the first
CORRECT and the next three WRONG: "cotangent of 'x': variance path: ...", "mean path: ...", "mean path and
variance path: ...".
                          0.002                              0.02
    forgets none          86.78 ± 0.05                       87.36 ± 0.31
    forgets variance      86.75 ± 0.17    -0.03 ± 0.17       87.30 ± 0.21    -0.06 ± 0.51
    forgets mean          86.36 ± 0.10    -0.42 ± 0.14       78.22 ± 4.58    -9.14 ± 4.73
    forgets both          86.49 ± 0.17    -0.29 ± 0.20       80.29 ± 0.78    -7.07 ± 1.03
    without batch norm    86.57 ± 0.12    -0.21 ± 0.12       83.46 ± 1.94    -3.91 ± 1.85
Here training does not miss the path through the variance: only a gradient checker sees the error.  That
through the mean it does, the more so the larger the steps, and then loses more than batch norm gains.

Hardware: 2 cores of a shared AMD EPYC, beside other work.
Versions: jax 0.10.2, optax 0.2.8, jcnn 0.1.0, Python 3.11.7.
Date: 2026-11-23
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

import jcnn
from experiments.whatif import study
from jcnn import net
from jcnn.kernels import widen

FORGOTTEN = {"none": (0, 0), "variance": (0, 1), "mean": (1, 0), "both": (1, 1)}  # terms of mean and variance


def batch_norm_bwd(mean: int, variance: int, res: Any, cotangents: Any) -> tuple:
    """The true backward, and added to it again the terms that are to be forgotten."""
    dx, dgamma, dbeta, dmask = jcnn.batch_norm.bwd(res, cotangents)
    xhat = (widen(res.x) - res.mean) * res.rstd
    terms = mean * widen(dbeta) + variance * xhat * widen(dgamma)
    return widen(dx) + widen(res.gamma) * res.rstd * terms / res.count, dgamma, dbeta, dmask


def forgetful(mean: int, variance: int) -> jcnn.Rule:
    return jcnn.batch_norm.replace(bwd=functools.partial(batch_norm_bwd, mean, variance))


def verdict(rule: jcnn.Rule) -> str:
    """What `jcnn.verify` says of the rule, on random images."""
    rng = np.random.default_rng(0)
    x, gamma, beta = rng.standard_normal((3, 4, 5, 2)), rng.uniform(0.5, 1.5, 2), rng.standard_normal(2)
    report = jcnn.verify.verify_vjp(rule, x, gamma, beta)
    return ": ".join([report.verdict, *report.causes])


def make_net(classes: int) -> net.Net:
    stages = [(net.conv(c, 3, bias=False), net.batch_norm(), jcnn.relu, net.max_pool(2)) for c in (16, 32)]
    return net.chain(*stages[0], *stages[1], net.flatten(), net.dense(classes))


def run(config: study.Config) -> dict[str, Any]:
    data = study.load(config)
    rules = {name: forgetful(*paths) for name, paths in FORGOTTEN.items()}
    verdicts = {name: verdict(rule) for name, rule in rules.items()}
    for name, words in verdicts.items():
        print(f"forgets {name}: {words}")
    base = make_net(len(data.classes))
    variants = {f"forgets {name}": base.with_rules({jcnn.batch_norm: rule}) for name, rule in rules.items()}
    without = {"without batch norm": study.small_net(len(data.classes))}
    trained = study.compare(config, data, variants | without)
    return study.findings(config, trained) | {"verdicts": verdicts}


def main(arguments: Sequence[str] | None = None) -> None:
    study.main(__spec__.name, run, arguments)


if __name__ == "__main__":
    main()
