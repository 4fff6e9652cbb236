"""Corpus readers, one file each: which clips there are, with their labels and splits. They decode nothing."""
