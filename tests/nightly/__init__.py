"""What this project promises about faults, bad input and numbers, measured anew by one command."""
