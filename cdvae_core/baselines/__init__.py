"""The systems that the paper compares CDVAE with, and ion substitution, behind one protocol.

`protocol` says what a system is, `checkpoint` keeps it in a folder, `training` fits it, `runs`
samples, reconstructs and optimises into folders that `cdvae evaluate` reads. Each system has a
module of its name; what it is made of is `cdvae_core.baseline_configs`.
"""
