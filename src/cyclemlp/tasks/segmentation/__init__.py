"""The task segmentation."""
