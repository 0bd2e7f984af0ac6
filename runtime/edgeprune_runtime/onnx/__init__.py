"""Trained network -> ONNX graph: export, the inverse transform inside, int8, and sessions that run it."""
