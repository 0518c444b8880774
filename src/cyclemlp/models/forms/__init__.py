"""Other forms of the backbones, each with the values of the plain form.

- `lean.py` keeps less for the backward pass: `lean_(model)`; state dict and gradients stay the same;
- `fused.py` computes less for inference: `timm.utils.reparameterize_model(model)`, and for export `graph_form(model)`.
"""
