"""How many wrong gradients a gradient checker finds.

Question: does `jcnn.verify` find every error, where `jax.test_util.check_grads` and differences with a
uniform cotangent do not (`checkers` says what each is), and does it leave correct rules alone?

Command: `python -m experiments.mutation_study`; `--help` lists what limits it: `--rules conv gelu`,
`--sets jcnn`, `--checkers verify`, `--cases 1`, `--limit 20`, `--level quick`.  With `--false-alarms 10` only
correct rules are looked at.

Method: the rules of jcnn and those of `experiments.classics`, each at two sets of small arguments.  The
errors are those planted in the classics, and all mutants that `jcnn.verify.mutate` makes of correct rules.
An error counts as found if a checker finds it at either set; sets at which it rejects the correct rule, too,
are left out.  A mutant that random probes cannot tell from the original at either set is listed as equivalent
and not counted.  A checker that raises has found the error; but `verify` must not raise.  Rounding to float32
is no error in float32: check_grads f32 cannot see it.

Result (verify only, 2026-11-23): rules of jcnn, all mutants at two argument sets each: 1137 of 1137 found
(411 equation, 638 generic, 88 semantic; 62 equivalent), 0 of 22 correct rules rejected, 1086 s beside other
work.  Classics: 186 of 187 planted errors found at float32 arguments and the last, which is one of bfloat16
only, at bfloat16 ones; of 25 mutants per rule all but one, which differs in second order at a kink
only; 0 of 28 correct rules rejected.  A cause that fits its description is named for 178 of the 187.

Hardware: 2 cores of a shared AMD EPYC with AVX-512.
Versions: jax 0.10.2, Python 3.11.7.
"""
