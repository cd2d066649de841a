"""What-if studies: training with other backwards than the derivative, which replaceable rules are for."""
