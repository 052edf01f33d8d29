"""Experiments: they use the pipeline, and the pipeline never uses them."""
