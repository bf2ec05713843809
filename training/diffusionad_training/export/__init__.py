"""From a run to a release bundle: ONNX graphs, thresholds, references and metadata."""
