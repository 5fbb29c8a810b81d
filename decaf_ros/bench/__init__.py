"""Measurements of everything, as pages and as data: ``decaf bench``."""
