"""Documents of a run: the page, its charts, and tables for the terminal."""
