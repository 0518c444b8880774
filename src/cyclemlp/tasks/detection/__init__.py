"""The task detection."""
