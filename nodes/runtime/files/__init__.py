"""Readers of model files: from bytes on disk to facts, or to a plain reason. Nothing in a file makes them raise."""
