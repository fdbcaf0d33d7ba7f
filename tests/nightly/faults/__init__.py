"""What may happen to a run and to its files: one file for each kind of fault."""
