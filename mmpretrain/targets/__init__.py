"""Targets: cluster ids per frame. Made by k-means over features, kept in a store with lineage, judged by quality."""
