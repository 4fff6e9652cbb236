"""What a run will need and how long it will take, from formulas and from its compiled program alone."""
