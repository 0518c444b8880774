"""From images to drawn, machine-readable results."""
