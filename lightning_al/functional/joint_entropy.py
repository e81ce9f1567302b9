"""4 SELECTION by joint information: which points tell most about the model together?

    (N, K, C) probabilities of K posterior samples -> [greedy picks] -> global positions

A *path* is one way the points chosen so far may be labelled: its probability, and what the posterior
over the K samples becomes if those labels are observed. The gain of a candidate is the mean over
paths of its BALD score under the posterior of the path. Merging paths into their mean can only raise
that (entropy is concave), so a few hundred merged ones bound all candidates from above, cheaply, and
only those whose bound reaches the best gain are evaluated on all paths: laziness without a guess.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, overload

import torch
from torch import Generator, Tensor

from lightning_al.functional.arithmetic import exact_arithmetic
from lightning_al.functional.rows import check_count, check_tensors, checked
from lightning_al.functional.selection import top_k
from lightning_al.functional.shard import Shard

__all__ = ["batch_bald"]

_NEAR_LIMIT = 0.9
_CELLS = 160


@overload
def batch_bald(
    mc_probs: Tensor,
    query_size: int,
    *,
    num_joint_samples: int = ...,
    exact: bool = ...,
    candidates: int | None = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[False] = ...,
) -> Tensor: ...
@overload
def batch_bald(
    mc_probs: Tensor,
    query_size: int,
    *,
    num_joint_samples: int = ...,
    exact: bool = ...,
    candidates: int | None = ...,
    generator: Generator | None = ...,
    shard: Shard | None = ...,
    return_scores: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@exact_arithmetic()
def batch_bald(
    mc_probs: Tensor,
    query_size: int,
    *,
    num_joint_samples: int = 10_000,
    exact: bool = False,
    candidates: int | None = None,
    generator: Generator | None = None,
    shard: Shard | None = None,
    return_scores: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Points chosen one by one, each for what its label adds about the model to those before it.

    Maximises greedily the mutual information between the labels of the query and the model's
    parameters; high for points on which the posterior samples are sure and disagree, each in another
    way. (A copy of a chosen point may be chosen too: its label would be a second, independent one.)

    The posterior samples must be the same for all points (consistent masks). Every way to label the
    points chosen is followed, with its probability, while no more than `num_joint_samples` are
    possible; then that many are kept, drawn without bias, the likely ones always. Every pick is that of
    a full evaluation of all candidates on the paths kept; gains nearer than 1e-6 nats count as equal,
    and ties go to the lowest position.

    Args:
        mc_probs: Class probabilities of the rows held here under each posterior sample, `(n, K, C)`.
        query_size: How many to choose; with fewer rows than that, all are chosen.
        num_joint_samples: Labellings that are followed at most; the error falls with its root.
        exact: Evaluate the candidates in float64 (equal: nearer than 1e-12 nats) instead of float32.
            The joint entropy stays an estimate beyond `num_joint_samples` labellings.
        candidates: Choose only among this many of the highest BALD scores. This may change the
            answer; `None` chooses among all.
        generator: Source of randomness, on the CPU and in the same state on every rank; `None`:
            torch's global one.
        shard: Which rows of the pool are held here; `None`: all of it.
        return_scores: Also return the joint information after each pick.

    Returns:
        Global positions `(min(query_size, N),)` in the order of choice, the same on every rank, and on
        request the joint information of the first 1, 2, ... of them, in nats, between 0 and log(K).
        The first is the BALD score; they do not decrease, and exceed the sum of the BALD scores by
        the error of estimation at most.

    Warns:
        UserWarning: If 90 % of log(K) are reached before the last picks: K samples cannot tell more
            apart (on average K**0.1 of them are left), so that gains from there on are noise.

    Raises:
        ValueError: If `mc_probs` does not hold probabilities of several samples, or a count is too low.

    References:
        Kirsch, van Amersfoort & Gal, "BatchBALD", 2019 (arXiv:1906.08158), algorithm 1 and section
        3.3; the paths kept: Fearnhead & Clifford, "On-line inference for hidden Markov models via
        particle filters", 2003, section 3. Cost: O(N m K C) a pick at most, with m paths, of which
        usually a few percent; memory O(m (K + C)) beside `(n, K)` entropies.

    Example:
        >>> import torch
        >>> sure, torn, half = [[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]
        >>> batch_bald(torch.tensor([sure, half, torn]), 1)
        tensor([2])
    """
    check_count(query_size=query_size)
    check_tensors(mc_probs=mc_probs)
    shard = Shard.whole(len(mc_probs)) if shard is None else shard
    with shard.together():
        _check(mc_probs, query_size, num_joint_samples, candidates, shard)
        pool = _Pool(mc_probs.detach(), shard, torch.float64 if exact else torch.float32)
    paths = _Paths.none_chosen(pool)
    if candidates is not None:
        kept = top_k(pool.gains(pool.open, paths), candidates, shard=shard)
        pool.open = pool.open[torch.isin(shard.positions[pool.open], kept)]
    chosen: list[int] = []
    information: list[float] = []
    known = 0.0
    for _ in range(min(query_size, shard.total)):
        position, gain, probs = pool.pick(paths)
        chosen.append(position)
        known = min(known + gain, math.log(mc_probs.shape[1]))
        information.append(known)
        paths = paths.extended(probs, num_joint_samples, generator)
    _warn_if_exhausted(information, mc_probs.shape[1])
    device = pool.mc_probs.device
    positions = torch.tensor(chosen, dtype=torch.long, device=device)
    scores = torch.tensor(information, dtype=pool.dtype, device=device)
    return (positions, scores) if return_scores else positions


@dataclass(frozen=True)
class _Paths:
    """Ways the chosen points may be labelled: probabilities `(m,)`, posteriors over samples `(m, K)`."""

    weight: Tensor
    posterior: Tensor

    @classmethod
    def none_chosen(cls, pool: _Pool) -> _Paths:
        samples = pool.mc_probs.shape[1]
        return cls(pool.new(1).fill_(1), pool.new(1, samples).fill_(1 / samples))

    @cached_property
    def mean(self) -> Tensor:
        """Posterior over the samples on average; float64, as 10,000 rows are added."""
        return self.weight.double() @ self.posterior.double()

    def extended(self, probs: Tensor, limit: int, generator: Generator | None) -> _Paths:
        """Each path followed by each label of one more point, `(K, C)`; at most `limit` are kept."""
        eps, classes = torch.finfo(probs.dtype).eps, probs.shape[1]
        probs = torch.threshold(probs, 1e-20, 0.0)
        mass = (self.weight[:, None] * (self.posterior @ probs)).flatten().double()
        kept = (mass > 1e-5 * eps).nonzero().squeeze(1)
        weight = mass[kept]
        if len(kept) > limit:
            drawn, weight = _resampled(weight, limit, generator)
            kept = kept[drawn]
        posterior = self.posterior[kept // classes].mul_(probs.T[kept % classes])
        # Kept out of the denormals, which are slow, at any depth.
        posterior[posterior < 1e-2 * eps * posterior.amax(1, keepdim=True)] = 0
        return _Paths((weight / weight.sum()).to(probs.dtype), posterior.div_(posterior.sum(1, keepdim=True)))

    def merged(self) -> _Paths:
        """Paths of like posteriors put together: those near one sample, and those near some of the unsure."""
        samples = self.posterior.shape[1]
        if len(self.weight) <= 2 * (samples + _CELLS):
            return self
        unsure = self.weight * torch.special.entr(self.posterior).sum(1)
        steps = _running_sums(unsure)
        at = steps[-1] * (torch.arange(_CELLS, device=steps.device) + 0.5) / _CELLS
        some = torch.unique(torch.searchsorted(steps, at).clamp_max(len(steps) - 1))
        centers = self.posterior[some].sqrt_()
        cell = torch.empty(len(self.weight), dtype=torch.long, device=steps.device)
        for start in range(0, len(cell), 2048):
            root = self.posterior[start : start + 2048].sqrt()
            cell[start : start + 2048] = torch.cat([root, root @ centers.T], 1).argmax(1)
        weight = self.weight.new_zeros(samples + len(centers)).index_add_(0, cell, self.weight)
        posterior = self.posterior.new_zeros(len(weight), samples)
        posterior.index_add_(0, cell, self.posterior * self.weight[:, None])
        used = weight > 0
        return _Paths(weight[used], posterior[used] / weight[used, None])


def _running_sums(values: Tensor) -> Tensor:
    """In float64 and on the CPU: a GPU's differ from call to call, and which labels are kept would too."""
    return values.double().cpu().cumsum(0).to(values.device)


def _resampled(weight: Tensor, limit: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
    """At most `limit` of more weights, without bias: the large as they are, of the others one a stratum."""
    large = torch.zeros_like(weight, dtype=torch.bool)
    while True:
        bar = weight[~large].sum() / (limit - large.sum())
        more = weight >= bar
        if torch.equal(more, large):
            break
        large = more
    small = (~large).nonzero().squeeze(1)
    strata = torch.arange(limit - int(large.sum()))
    # Drawn apart in each stratum: one offset for all would give all paths of a weight the same label.
    at = (strata + torch.rand(len(strata), generator=generator, dtype=torch.float64)).to(weight.device) * bar
    hit = torch.searchsorted(_running_sums(weight[small]), at).clamp_max(len(small) - 1)
    hit, count = torch.unique(hit, return_counts=True)
    drawn, order = torch.cat([large.nonzero().squeeze(1), small[hit]]).sort()
    return drawn, torch.cat([weight[large], bar * count])[order]


class _Pool:
    """The rows held here, and which of them are still open."""

    def __init__(self, mc_probs: Tensor, shard: Shard, dtype: torch.dtype) -> None:
        # MPS has no float64, in which the sums are made.
        self.mc_probs = mc_probs.cpu() if mc_probs.device.type == "mps" else mc_probs
        self.shard, self.dtype = shard, dtype
        self.open = torch.arange(len(mc_probs))
        self.same = 1e-6 if dtype == torch.float32 else 1e-12
        # The product of a block of paths with a block of candidates stays in the cache.
        on_cpu, classes = self.mc_probs.device.type == "cpu", mc_probs.shape[2]
        self.width = max(1, (320 if on_cpu else 8192) // classes)
        self.depth = max(1, (2**17 if on_cpu else 2**25) // (self.width * classes))
        parts = torch.split(self.mc_probs, self.width)
        found = [torch.special.entr(part.to(dtype).clamp_min(0)).sum(-1) for part in parts]
        self.entropies = torch.cat(found)
        wrong = ~self.entropies.isfinite().all(1)
        if bool(wrong.any()):
            raise ValueError(
                f"`mc_probs` is NaN or infinite {shard.named(wrong)}; needed are finite numbers. Find out "
                "which of the model's outputs are not."
            )

    def new(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.mc_probs.device)

    def pick(self, paths: _Paths) -> tuple[int, float, Tensor]:
        """Position, gain and probabilities `(K, C)` of the open row that adds most, over all ranks."""
        gains = self._highest_gains(paths)
        best = float(self.shard.gather(gains.sort(descending=True).values[:1]).max())
        rows = self.open[gains >= best - self.same][:1]
        positions = self.shard.gather(self.shard.positions[rows])
        probs = self.shard.gather(self.mc_probs[rows.to(self.mc_probs.device)].to(self.dtype))
        position = int(positions.min())
        self.open = self.open[self.shard.positions[self.open] != position]
        return position, best, probs[positions.argmin()]

    def _highest_gains(self, paths: _Paths) -> Tensor:
        """Gain of every open row; -inf where a bound says that it is lower than the best."""
        merged = paths.merged()
        bounds = self.gains(self.open, merged)
        if merged is paths:
            return bounds
        gains = torch.full_like(bounds, -torch.inf)
        order = bounds.argsort(descending=True)
        for start in range(0, len(order), self.width):
            some = order[start : start + self.width]
            if bounds[some[0]] < gains.max() - 2 * self.same:
                break
            gains[some] = self.gains(self.open[some], paths)
        return gains

    def gains(self, rows: Tensor, paths: _Paths) -> Tensor:
        """What the label of each row adds to the labels on the paths, in nats; float64, on the CPU."""
        found = [torch.empty(0, dtype=torch.float64)]
        for start in range(0, len(rows), self.width):
            some = rows[start : start + self.width]
            # Always the same shape, and so the same arithmetic whichever rows come together.
            block = torch.cat([some, some[:1].expand(self.width - len(some))]).to(self.mc_probs.device)
            probs = torch.threshold(self.mc_probs[block].to(self.dtype), 1e-20, 0.0)
            entropy = self._entropy(probs.transpose(0, 1).flatten(1), paths)
            gain = entropy.view(self.width, -1).sum(1) - self.entropies[block].double() @ paths.mean
            found.append(gain[: len(some)].clamp_min_(0).cpu())
        return torch.cat(found)

    def _entropy(self, probs: Tensor, paths: _Paths) -> Tensor:
        """Each column's part of the mean entropy of the predictions of the paths."""
        total = probs.new_zeros(probs.shape[1], dtype=torch.float64)
        depth = min(self.depth, len(paths.weight))
        products, logs = self.new(depth, probs.shape[1]), self.new(depth, probs.shape[1])
        for start in range(0, len(paths.weight), depth):
            posterior = paths.posterior[start : start + depth]
            product, log = products[: len(posterior)], logs[: len(posterior)]
            torch.mm(posterior, probs, out=product)
            torch.log(product.clamp_min_(1e-30), out=log)
            total -= paths.weight[start : start + depth] @ log.mul_(product)
        return total


def _warn_if_exhausted(information: list[float], samples: int) -> None:
    limit = math.log(samples)
    picks = sum(value < _NEAR_LIMIT * limit for value in information) + 1
    if picks < len(information):
        warnings.warn(
            f"`batch_bald`: after {picks} of {len(information)} picks the joint information is "
            f"{information[picks - 1]:.3g} nats, and {samples} posterior samples cannot tell more than "
            f"log({samples}) = {limit:.3g} apart: gains from there on are noise. Use more posterior "
            "samples, a smaller query, or `PowerSampling(BALD())`.",
            stacklevel=4,
        )


def _check(
    mc_probs: Tensor, query_size: int, num_joint_samples: int, candidates: int | None, shard: Shard
) -> None:
    if mc_probs.ndim != 3 or mc_probs.shape[1] < 2:
        raise ValueError(
            f"`mc_probs` has shape {tuple(mc_probs.shape)}; needed is (N, K, C) with K > 1 posterior "
            "samples, without whose disagreement there is no information. Predict with `MCDropout` or a "
            "`Committee`."
        )
    if mc_probs.shape[2] < 2:
        raise ValueError(
            f"`mc_probs` has shape {tuple(mc_probs.shape)}, with {mc_probs.shape[2]} classes; needed are at "
            "least two to disagree about. Write a single-logit head's probability p as the pair [1 - p, p]."
        )
    if num_joint_samples < mc_probs.shape[1]:
        raise ValueError(
            f"`num_joint_samples` is {num_joint_samples} for K = {mc_probs.shape[1]} posterior samples; "
            "needed is at least one labelling a sample. Raise it to 10000, or predict with fewer samples."
        )
    if candidates is not None and candidates < query_size:
        raise ValueError(
            f"`candidates` is {candidates} for a `query_size` of {query_size}; needed are at least as many. "
            "Raise it, or leave it out to choose among all."
        )
    shard.check(len(mc_probs), "mc_probs")
    checked(mc_probs, "mc_probs")
