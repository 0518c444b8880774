"""The dense heads of the papers, on any backbone with a feature pyramid."""
