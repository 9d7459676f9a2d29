"""The review desk: pending candidates, their evidence, and the decisions on them."""
