"""What is tried at night, for an hour; by day, other tests use the same helpers a few times."""
