"""Models for use elsewhere: ONNX, safetensors, model card."""
