"""What is read from disks, with suspicion, and written whole or not at all."""
