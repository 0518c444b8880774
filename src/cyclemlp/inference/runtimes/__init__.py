"""What runs a network: one module per runtime. Each declares itself as `RUNTIME`, and imports its package when used."""
