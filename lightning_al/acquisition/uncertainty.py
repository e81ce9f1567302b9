"""UNCERTAINTY: what one prediction says of itself."""

from __future__ import annotations

from torch import Tensor

from lightning_al import functional as F
from lightning_al.acquisition.base import ProbabilityAcquisition, ScoreAcquisition
from lightning_al.inference.outputs import Outputs

__all__ = ["Entropy", "HyperplaneDistance", "LeastConfidence", "Margin"]


class Entropy(ProbabilityAcquisition):
    """Asks where the probability is spread over many classes; see `functional.entropy`.

    Example:
        >>> Entropy(reduction="max")
        Entropy(multilabel=False, reduction='max')
    """

    def pointwise(self, probs: Tensor) -> Tensor:  # noqa: D102
        return F.entropy(probs)


class LeastConfidence(ProbabilityAcquisition):
    """Asks where even the best guess is unlikely; see `functional.least_confidence`.

    Example:
        >>> import torch
        >>> LeastConfidence().pointwise(torch.tensor([[0.9, 0.1], [0.6, 0.4]]))
        tensor([0.1000, 0.4000])
    """

    def pointwise(self, probs: Tensor) -> Tensor:  # noqa: D102
        return F.least_confidence(probs)


class Margin(ProbabilityAcquisition):
    """Asks where two classes compete; see `functional.margin`. The strongest simple baseline.

    It matched or beat all else on 69 tabular data sets in Bahri et al., "Is Margin All You Need?",
    2022 (arXiv:2210.03822).

    Example:
        >>> import torch
        >>> Margin().pointwise(torch.tensor([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0]]))
        tensor([0.2000, 0.8000])
    """

    def pointwise(self, probs: Tensor) -> Tensor:  # noqa: D102
        return F.margin(probs)


class HyperplaneDistance(ScoreAcquisition):
    """Asks for the samples nearest to a decision boundary of the last linear layer.

    The support vector machine's rule on a network's features; see `functional.hyperplane_distance`.
    The scores are distances in feature space, negated: all are 0 or below.

    Example:
        >>> import torch
        >>> weight, bias = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.zeros(2)
        >>> h = torch.tensor([[3.0, 9.0], [-0.5, 0.0]])
        >>> outputs = Outputs(logits=h @ weight.T + bias, embeddings=h, classifier=(weight, bias))
        >>> HyperplaneDistance().score(outputs)
        tensor([-3.0000, -0.5000])
    """

    needs = ("embeddings", "classifier", "logits")

    def score(self, outputs: Outputs) -> Tensor:  # noqa: D102
        if outputs.embeddings.ndim != 2 or outputs.logits.ndim > 2:
            raise ValueError(
                f"The logits have shape {tuple(outputs.logits.shape)} and the embeddings "
                f"{tuple(outputs.embeddings.shape)}; `HyperplaneDistance` needs one vector a sample, (B, D). "
                "Pool over places in the model, or use `Margin`, which reduces dense outputs."
            )
        if outputs.classifier is None:
            raise ValueError(
                "No `nn.Linear` of the module made its logits, but `HyperplaneDistance` measures distances "
                "to that layer's boundaries. End the model in a linear layer, or use `Margin`."
            )
        weight, bias = outputs.classifier
        return F.hyperplane_distance(outputs.embeddings, weight, bias)
