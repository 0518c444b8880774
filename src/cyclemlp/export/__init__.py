"""From a trained network to a file that other runtimes run, with proof that it gives the same values."""
