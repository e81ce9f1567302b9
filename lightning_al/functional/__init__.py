"""Pure tensor functions: scores (higher = more informative) and selections (global positions).

They know nothing of Lightning. Scores take probabilities with the class axis last; selections take
`generator`, `shard` and `return_scores` and give the same positions on any number of ranks.
"""

from lightning_al.functional.clustering import diverse_mini_batch, weighted_kmeans
from lightning_al.functional.d2_sampling import badge, kmeans_plus_plus
from lightning_al.functional.disagreement import bald, consensus_kl, mean_std, predictive_variance
from lightning_al.functional.joint_entropy import batch_bald
from lightning_al.functional.k_center import covering_radius, k_center_greedy
from lightning_al.functional.ranking import pairwise_ranking_loss, ranking_accuracy
from lightning_al.functional.scores import (
    entropy,
    hyperplane_distance,
    least_confidence,
    margin,
)
from lightning_al.functional.selection import power_sample, top_k
from lightning_al.functional.shard import Shard
from lightning_al.functional.votes import count_votes, variation_ratio, vote_entropy, vote_margin

__all__ = [
    "Shard",
    "badge",
    "bald",
    "batch_bald",
    "consensus_kl",
    "count_votes",
    "covering_radius",
    "diverse_mini_batch",
    "entropy",
    "hyperplane_distance",
    "k_center_greedy",
    "kmeans_plus_plus",
    "least_confidence",
    "margin",
    "mean_std",
    "pairwise_ranking_loss",
    "power_sample",
    "predictive_variance",
    "ranking_accuracy",
    "top_k",
    "variation_ratio",
    "vote_entropy",
    "vote_margin",
    "weighted_kmeans",
]
