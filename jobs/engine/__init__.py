"""Accelerate and DeepSpeed, and who owns which part of a weight."""
