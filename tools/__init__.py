"""Run in a checkout, installed nowhere: set-up, benchmarks, generated pages, and the training of the embedded models."""
