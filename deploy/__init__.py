"""Export: ONNX, safetensors and a model card."""
