"""One page that walks through the CNN lecture with live numbers.

Question: do the numbers, gradients and pictures of a CNN lecture come out of jcnn, each computed in one run
and compared with NumPy, the literature or autodiff?

Command: `python -m experiments.lecture`; `--help` lists the options, `--dataset digits --steps 2` is quick.
It leaves `index.html`, with all figures in it, and the figures as PNG in a folder of its own.

Result: all 55 comparisons agree.  The net of the page, with 24,314 parameters, has 86.0 % test accuracy on
Fashion-MNIST after 600 steps (n = 1, seed 0).  Shifts by 4 pixels, the stride of its poolings, change no
answer of 64, shifts by 1, 2 or 3 pixels change 9 %.  Of the 9 patches that excite a channel most, 43 %, 49 %
and 68 % are of one class in stages 1, 2 and 3.  79 s, beside other work.

Hardware: 2 cores of a shared AMD EPYC with AVX-512.
Versions: jax 0.10.2, optax 0.2.8, matplotlib 3.11.2, Python 3.11.7.
Date: 2026-11-23.

A section is a function that returns its title and blocks (`page.Section`): `sliding` has cross-correlation,
padding, stride, channels and pooling, `fields` what a neuron sees and the minibatch, `gradients` softmax
cross-entropy and backpropagation, `learned` batch norm, training and invariance, `features` the hierarchy.
"""
