"""What every stage stands on: the run, its rounds, its folders, and the pass of an encoder over a table of clips."""
