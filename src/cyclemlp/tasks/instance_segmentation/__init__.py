"""The task instance segmentation."""
