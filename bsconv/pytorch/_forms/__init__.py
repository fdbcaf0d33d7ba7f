"""What a convolution may become, the kernels that fit its outputs, and plans for whole models."""
