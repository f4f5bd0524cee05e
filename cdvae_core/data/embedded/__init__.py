"""The two datasets that ship with the package, and the recipes that made them.

`perov_like` (5,000 perovskites) and `mp_like` (2,000 crystals of many types) were generated and
relaxed by this package with CHGNet v0.3.0. Reading them needs only their Parquet files, beside
this module; rebuilding them (`cdvae data build NAME`) needs `pip install "cdvae[build]"`.
"""
