"""Training: configuration, resumable loader, callbacks, report."""
