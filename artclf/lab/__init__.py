"""Experiments: they use the pipeline, and the pipeline never uses them."""

import artclf.model  # noqa: F401 (imports fastai without its warnings)
