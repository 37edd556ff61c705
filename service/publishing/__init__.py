"""What MLflow gets after a job or campaign has ended."""
