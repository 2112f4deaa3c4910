"""Metrics, calibration, confidence intervals, comparisons, analyses."""
