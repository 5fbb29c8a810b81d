"""Run in a checkout, installed nowhere: set-up, generated pages, and the training of the embedded models."""
