"""Commands that look at a run or a store and change nothing in it."""
