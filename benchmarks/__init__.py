"""What makes the tables and figures of docs/: commands, never timed tests."""
