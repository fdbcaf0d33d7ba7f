"""What a convolution may become, and the kernels of each form that fit its outputs."""
