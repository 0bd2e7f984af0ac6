"""Trained network -> ONNX file, and pictures -> classes."""
