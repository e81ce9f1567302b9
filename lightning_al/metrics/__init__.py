"""METRICS: what active learning is judged by, as torchmetrics; correct on several processes.

budget.py   AreaUnderBudgetCurve: a whole curve of a metric against the number of labels, as one number
entropy.py  LabelEntropy: how evenly the classes are among labels
covering.py CoveringRadius: how far the farthest sample is from a labelled one
ranking.py  LossRankingAccuracy: whether predicted losses are in the order of the true ones
"""

from lightning_al.metrics.budget import AreaUnderBudgetCurve
from lightning_al.metrics.covering import CoveringRadius
from lightning_al.metrics.entropy import LabelEntropy
from lightning_al.metrics.ranking import LossRankingAccuracy

__all__ = ["AreaUnderBudgetCurve", "CoveringRadius", "LabelEntropy", "LossRankingAccuracy"]
