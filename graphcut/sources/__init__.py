"""Adapters that turn other model formats into an ONNX file, one module per kind of source."""
