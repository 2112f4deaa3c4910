"""From a trained model to predictions: decoding, checkpoints, the predictor for Python."""
