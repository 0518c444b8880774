"""What each task is: loss, metrics, and what a saved model says of itself."""
