"""What a run tells while it goes on: metrics on disk, progress in the terminal, time, memory and traces."""
