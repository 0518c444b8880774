"""What runs a network: one module per runtime, all behind the protocol of `runtimes.network`."""
