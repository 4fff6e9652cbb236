"""Many devices and processes as one: the mesh, who does what, and stopping together."""
