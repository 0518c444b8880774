"""Data sets: one module per format, safe decoding, augmentation, the embedded sample."""
