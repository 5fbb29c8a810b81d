"""Trains and judges the embedded SAM 2.1: clips and batches of them, architecture, losses of the unrolled tracker, scores."""
