"""What a reviewer reads of a candidate: the evidence page, the model card, and single requests compared."""
