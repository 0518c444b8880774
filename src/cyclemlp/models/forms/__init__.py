"""Other forms of the networks, each put on by a call: lean for training, fused for inference, graph for export."""
