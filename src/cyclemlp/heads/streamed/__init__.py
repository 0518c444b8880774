"""Networks over images that are too large for memory, with the values of the image in one piece."""
