"""Evidence: do strategies that ask do better than chance, at what price, and which should be the default?

data.py, models.py -> studies.py -> `compare` -> regret.py, classes.py, draw.py -> tell.py -> the page

python -m benchmarks.evidence --data-root DIR    # from the root of the repository; goes on where it stopped
"""
