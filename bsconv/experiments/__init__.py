"""What the notebooks and the command line share: data, training, figures."""
