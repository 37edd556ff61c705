"""What a finished job leaves: model directory, masks, figures, facts of its MLflow run."""
