"""Formats that an encoder leaves in for other programs; each is one module or package here."""
