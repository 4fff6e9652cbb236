"""What a run tells its user: metrics on disk, progress in the terminal and a report page."""
