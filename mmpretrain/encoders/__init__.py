"""An encoder as a folder: between rounds, and for whoever takes it away."""
