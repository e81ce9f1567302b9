"""Comparisons as rows, made by hand."""

from lightning_al import Comparison


def rows(curves, *, metric="test_acc", first=10, step=10, **more):
    """Of `{strategy: [values of seed 0, values of seed 1, ...]}`."""
    return [
        {"strategy": name, "seed": seed, "round": r, "labeled": first + step * r, "asked": step, **more}
        | {metric: value}
        for name, seeds in curves.items()
        for seed, values in enumerate(seeds)
        for r, value in enumerate(values)
    ]


def comparison(curves, **options):
    return Comparison.of_rows(rows(curves, **options))


CURVES = {
    "Random": [[0.2, 0.4, 0.5, 0.6], [0.3, 0.4, 0.6, 0.6], [0.2, 0.3, 0.4, 0.5]],
    "Margin": [[0.2, 0.5, 0.6, 0.7], [0.3, 0.6, 0.6, 0.8], [0.2, 0.5, 0.7, 0.6]],
}
