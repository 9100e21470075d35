"""Memory in activations: what a model carries from one step to the next."""
