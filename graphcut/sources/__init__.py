"""Adapters that make an ONNX file out of something else; one module for each source, named in the recipe."""
