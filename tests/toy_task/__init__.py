"""A task outside the package: a value from 0 to 1 for every pixel, as in depth or height from one image."""
