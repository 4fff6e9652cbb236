"""Networks as Flax modules: front-ends, fusion, transformer, heads. None knows a mesh, a file or a process."""
