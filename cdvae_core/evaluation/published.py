"""The figures of the paper (Tables 1 to 3 of Xie et al. 2021), under the names of a report.

Shares are fractions, as in `report.json`. The energies' distance of Carbon-24 and what the paper
leaves blank are left out.
"""

from __future__ import annotations

_RECONSTRUCTION = ("match_rate", "rms_dist")
_GENERATION = (
    "struct_valid", "comp_valid", "cov_recall", "cov_precision", "wdist_density", "wdist_prop",
    "wdist_num_elems",
)  # fmt: skip
_OPTIMISATION = ("SR5", "SR10", "SR15")

# task, dataset, model, the figures as printed (shares of the first two tables in percent)
_ROWS = """
reconstruction perov_5   FTCP          99.34 0.0259
reconstruction perov_5   Cond-DFC-VAE  51.65 0.0217
reconstruction perov_5   CDVAE         97.52 0.0156
reconstruction carbon_24 FTCP          62.28 0.2563
reconstruction carbon_24 CDVAE         55.22 0.1251
reconstruction mp_20     FTCP          69.89 0.1593
reconstruction mp_20     CDVAE         45.43 0.0356
generation perov_5   FTCP          0.24 54.24 0.00 0.00 10.27 156.0 0.6297
generation perov_5   Cond-DFC-VAE  73.60 82.95 73.92 10.13 2.268 4.111 0.8373
generation perov_5   G-SchNet      99.92 98.79 0.18 0.23 1.625 4.746 0.03684
generation perov_5   P-G-SchNet    79.63 99.13 0.37 0.25 0.2755 1.388 0.4552
generation perov_5   CDVAE         100.0 98.59 99.45 98.46 0.1258 0.0264 0.0628
generation carbon_24 FTCP          0.08 - 0.00 0.00 5.206 19.05 -
generation carbon_24 G-SchNet      99.94 - 0.00 0.00 0.9427 1.320 -
generation carbon_24 P-G-SchNet    48.39 - 0.00 0.00 1.533 134.7 -
generation carbon_24 CDVAE         100.0 - 99.80 83.08 0.1407 0.2850 -
generation mp_20     FTCP          1.55 48.37 4.72 0.09 23.71 160.9 0.7363
generation mp_20     G-SchNet      99.65 75.96 38.33 99.57 3.034 42.09 0.6411
generation mp_20     P-G-SchNet    77.51 76.40 41.93 99.74 4.04 2.448 0.6234
generation mp_20     CDVAE         100.0 86.70 99.15 99.49 0.6875 0.2778 1.432
optimisation perov_5   FTCP          0.06 0.11 0.16
optimisation perov_5   Cond-DFC-VAE  0.55 0.64 0.69
optimisation perov_5   CDVAE         0.52 0.65 0.79
optimisation carbon_24 FTCP          0.00 0.00 0.00
optimisation carbon_24 CDVAE         0.00 0.06 0.06
optimisation mp_20     FTCP          0.02 0.04 0.05
optimisation mp_20     CDVAE         0.78 0.86 0.90
"""
_PERCENT = {"match_rate", "struct_valid", "comp_valid", "cov_recall", "cov_precision"}
_NAMES = {
    "reconstruction": _RECONSTRUCTION, "generation": _GENERATION, "optimisation": _OPTIMISATION,
}  # fmt: skip


def rows(task: str, dataset: str) -> dict[str, dict[str, float | None]]:
    """The paper's figures by model, empty where it has none."""
    found: dict[str, dict[str, float | None]] = {}
    for line in _ROWS.strip().splitlines():
        of_task, of_dataset, model, *values = line.split()
        if (of_task, of_dataset) == (task, dataset):
            found[f"{model} (paper)"] = {
                name: float(value) / (100 if name in _PERCENT else 1)
                for name, value in zip(_NAMES[task], values, strict=True)
                if value != "-"
            }
    return found
