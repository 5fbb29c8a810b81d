"""Trains and judges the embedded Qwen2.5-VL: data and questions, architecture, one pass over a batch, losses, scores."""
