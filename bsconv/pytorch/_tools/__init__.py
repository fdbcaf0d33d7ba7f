"""What all rooms share; imports torch alone."""
