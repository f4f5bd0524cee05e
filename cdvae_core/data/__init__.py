"""Datasets: the registry, the download, the preprocessing and the cache that training reads."""
