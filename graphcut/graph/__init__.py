"""The only importer of onnx and onnxruntime: ONNX files become normalised graphs, segments and float results."""
