"""MLflow, which shows what the model registry says: a run and a model version for each candidate, and two aliases."""
