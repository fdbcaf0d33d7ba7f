"""float32 beside float64 on numbers chosen to hurt: inputs, cases, comparison, determinism."""
