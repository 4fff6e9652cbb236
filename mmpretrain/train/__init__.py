"""How any objective is trained: the step, the loop around it, and what is kept of it."""
