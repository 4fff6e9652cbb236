"""Encoders in the file layout of AV-HuBERT, read and written without running what is in a file."""
