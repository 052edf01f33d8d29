"""Experiments and helpers that a newcomer may ignore; they use the pipeline and are never imported
by it.
"""
