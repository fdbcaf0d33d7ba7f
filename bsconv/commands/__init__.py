"""The commands of ``bsconv``, one file each."""
