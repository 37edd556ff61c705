"""The embedded default: Ray, MLflow and our server on one machine."""
