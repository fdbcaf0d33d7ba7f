"""float32 compared with float64 on numbers chosen to hurt, gradients and determinism."""
