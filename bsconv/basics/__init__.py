"""What needs no PyTorch: errors on one line, whole files, tables, the stopwatch."""
