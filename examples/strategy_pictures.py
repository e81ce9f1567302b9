"""What every strategy asks for on one and the same plane: a picture for each page of `docs/strategies/`.

    python examples/strategy_pictures.py --pictures docs/images

Three classes overlap, a fourth is rare, and where two of them meet lies a clump of near-copies. A small
network knows 15 labels, and each strategy asks for ten more. On the left is what it looks at, on the right
what it asks for, numbered in order.
"""

import argparse
import logging
from pathlib import Path

import lightning as L
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from lightning_al import ActiveDataModule, Committee, LearningLossMixin, LearningLossOptions, MCDropout, query
from lightning_al import acquisition as acq
from lightning_al.plotting.style import INK, new_figure, styles_of

LIMITS = (-4.6, 4.6, -4.2, 4.0)
LABELS = {0: 5, 1: 5, 2: 4, 3: 1}  # so many of each class are known
RARE, CLUMP, ASKED = 3, 4, 10  # two groups of the points, and the size of a query
COLORS = [color for color, _ in styles_of(("a", "b", "c", "d"), baseline="").values()]
MAP = colormaps["magma"].resampled(64)
QUIET = {
    "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False,
    "enable_progress_bar": False, "enable_model_summary": False,
}  # fmt: skip


class Net(LearningLossMixin, L.LightningModule):
    """Classes or, with one output, a number. The head that predicts its loss only looks."""

    learning_loss_layers = ("net.0", "net.3")
    learning_loss_options = LearningLossOptions(detach_after=0, objective="smooth")

    def __init__(self, outputs=4):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2)
        )
        self.head = nn.Linear(64, outputs)

    def forward(self, x):
        """Logits, or numbers `(B,)`."""
        return self.head(self.net(x)).squeeze(1)

    def training_step(self, batch, batch_idx):
        """Cross-entropy, or the squared error."""
        x, y = batch
        loss = nn.functional.mse_loss if y.is_floating_point() else nn.functional.cross_entropy
        return self.learning_loss(loss(self(x), y, reduction="none"))

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.AdamW(self.parameters(), lr=5e-3, weight_decay=1e-2)


def points():
    """Points of the plane, their classes, and the group that each was drawn for."""
    draw = torch.Generator().manual_seed(0)

    def cloud(count, x, y, spread):
        return torch.tensor([x, y]) + spread * torch.randn(count, 2, generator=draw)

    clouds = [
        cloud(130, -1.7, 1.1, 0.8), cloud(130, 1.5, 1.2, 0.8), cloud(130, 0.0, -1.5, 0.7),
        cloud(12, 3.3, -2.1, 0.3), cloud(80, -0.85, -0.5, 0.05),
    ]  # fmt: skip
    group = torch.arange(5).repeat_interleave(torch.tensor([len(cloud) for cloud in clouds]))
    mixed = 2 * (torch.arange(len(group)) % 2)  # the clump is of both classes that meet there
    return torch.cat(clouds), torch.where(group == CLUMP, mixed, group), group


def number_at(x):
    """What there is to predict of a point, where it is a number and no class."""
    return x[:, 0].sin() + 0.5 * x[:, 1]


def numbers_as_colors(x):
    """A colour for each number to predict."""
    numbers = number_at(x)
    return colormaps["viridis"]((numbers - numbers.min()) / (numbers.max() - numbers.min()))


def trained(seed, x, y, steps):
    """A network with its own first weights and its own order of the labels."""
    L.seed_everything(seed, verbose=False)
    net = Net(1 if y.is_floating_point() else 4)
    order = RandomSampler(y, replacement=True, num_samples=steps * 16)
    L.Trainer(max_epochs=1, **QUIET).fit(net, DataLoader(TensorDataset(x, y), batch_size=16, sampler=order))
    return net


def strategies(members, regressors, passes):
    """A strategy, what is mapped on the left (a strategy's score, or one of `map_of`), and what that is."""
    dropout, committee = MCDropout(passes), Committee(models=members)
    margin, bald = acq.Margin(), acq.BALD(dropout)
    scores = {
        acq.Entropy(): "nats", acq.LeastConfidence(): "1 - p₁", margin: "1 - (p₁ - p₂)",
        acq.HyperplaneDistance(): "minus the distance", acq.VariationRatio(dropout): "a share of the passes",
        acq.MeanSTD(dropout): "a deviation of probabilities", bald: "nats",
        acq.VoteEntropy(committee): "nats", acq.VoteMargin(committee): "1 - (v₁ - v₂)",
        acq.ConsensusKL(committee): "nats", acq.LearningLoss(): "the predicted loss",
        acq.PredictiveVariance(Committee(models=regressors)): "a variance",
    }  # fmt: skip
    for strategy, unit in scores.items():
        yield strategy, strategy, f"its score: {unit}"
    yield acq.Random(), "prediction", "what the model predicts"
    yield acq.BatchBALD(dropout), bald, "BALD's score of each by itself: nats"
    yield acq.CoreSet(), "distance", "distance of embeddings to the nearest labelled one"
    yield acq.BADGE(), "gradient", "length of the gradient"
    yield acq.DiverseMiniBatch(beta=10), margin, "Margin's score"
    yield acq.PowerSampling(margin), margin, "Margin's score"
    yield acq.TwoStage(margin, then=acq.CoreSet(), keep=0.25), margin, "Margin's score"
    yield acq.ClassBalanced(margin), "prediction", "what the model predicts"


@torch.no_grad()
def map_of(kind, net, grid, known):
    """What is on the left where it is no strategy's score."""
    features = net.eval().net(grid)
    probs = net.head(features).softmax(1)
    if kind == "prediction":
        return probs.argmax(1).numpy()
    if kind == "distance":
        return torch.cdist(features, net.net(known)).amin(1).numpy()
    errors = probs - nn.functional.one_hot(probs.argmax(1), probs.shape[1])
    return (errors.norm(dim=1) * features.norm(dim=1)).numpy()


def places_of(points, marks):
    """Where the number of each point can stand: near it, and apart from other numbers, points and marks."""
    taken = []
    turns = torch.arange(16) * torch.pi / 8 + torch.pi / 8
    rings = [
        radius * torch.stack([turns.cos(), turns.sin()], 1) for radius in (0.42, 0.7, 1.0, 1.3, 1.7, 2.1)
    ]
    left, right, low, high = LIMITS
    for point in points:
        spots = point + torch.cat(rings)
        others = torch.stack([*taken, *points, *marks])
        apart = torch.cdist(spots, others).amin(1)
        inside = (spots > torch.tensor([left, low]) + 0.2) & (spots < torch.tensor([right, high]) - 0.2)
        taken.append(spots[int(((apart > 0.41) & inside.all(1)).int().argmax())])
    return taken


def draw_left(ax, values, x, known):
    """What the strategy looks at, the pool in grey, what is labelled in crosses."""
    side, classes = round(len(values) ** 0.5), values.dtype.kind == "i"
    values = values.reshape(side, side).T
    if classes:
        values = 0.55 + 0.45 * np.array([to_rgb(color) for color in COLORS])[values]
    image = ax.imshow(values, origin="lower", extent=LIMITS, aspect="auto", cmap=MAP, interpolation="nearest")
    if not classes:
        ax.figure.colorbar(image, ax=ax, pad=0.02).ax.tick_params(labelsize=8, colors=INK)
    ax.scatter(*x.T, s=4, color="#8C8C8C" if classes else "#B8B8B8", linewidths=0)
    ax.scatter(*x[known].T, s=34, color=INK if classes else "white", marker="x", linewidths=1.6)


def draw_right(ax, x, color, known, asked):
    """The pool in the colours of its answers, what is labelled in crosses, the query in numbers."""
    ax.scatter(*x.T, s=5, c=color, linewidths=0, alpha=0.45)
    ax.scatter(*x[known].T, s=34, c=color[known], marker="x", linewidths=1.6)
    ax.scatter(*x[asked].T, s=16, color=INK, linewidths=0)
    box = {"boxstyle": "circle,pad=0.12", "facecolor": "white", "edgecolor": INK, "linewidth": 0.6}
    for number, (point, place) in enumerate(
        zip(x[asked], places_of(x[asked], x[known]), strict=True), start=1
    ):
        ax.plot(*torch.stack([point, place]).T, color=INK, linewidth=0.5)
        ax.text(*place, str(number), fontsize=7, color=INK, ha="center", va="center", bbox=box)


def picture(path, title, values, x, color, known, asked):
    """Both side by side."""
    figure = new_figure((8.2, 3.5))
    left, right = figure.subplots(1, 2, width_ratios=(1.13, 1))
    draw_left(left, values, x, known)
    draw_right(right, x, color, known, asked)
    for ax, text in ((left, title), (right, f"the {len(asked)} that it asks for, in order")):
        ax.set_title(text, fontsize=9.5, loc="left", color=INK)
        ax.set(xlim=LIMITS[:2], ylim=LIMITS[2:], xticks=[], yticks=[])
        ax.spines[:].set_color("#D9D9D9")
    figure.savefig(path, dpi=110)
    few = Image.open(path).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)  # a third of the size
    few.save(path, optimize=True)


def pool_of(places):
    """A pool of such points, to be scored and not labelled."""
    # One more is labelled, so that a query is of round 1 here too, with the other pool's dropout masks.
    x, y = torch.cat([places, places[:1]]), torch.zeros(len(places) + 1).long()
    return ActiveDataModule(TensorDataset(x, y), initial=[len(places)], pool_batch_size=4096)


def scores_of(strategy, net, pool, trainer):
    """The score of each point of a pool, in order."""
    found = query(net, pool, strategy, len(pool.pool_indices), trainer=trainer)
    return found.scores[found.indices.argsort()]


def arguments():
    """Of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path, default=Path("docs/images"), help="the folder")
    parser.add_argument("--members", type=int, default=8, help="of the committees")
    parser.add_argument("--passes", type=int, default=50, help="of MC dropout")
    parser.add_argument("--steps", type=int, default=80, help="of the training of each network")
    parser.add_argument("--side", type=int, default=121, help="points in a row of the plane")
    return parser.parse_args()


def main():
    """Train, ask by every strategy, draw."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    args = arguments()
    x, classes, group = points()
    known = np.concatenate([np.flatnonzero(group == one)[:count] for one, count in LABELS.items()])
    nets = [trained(seed, x[known], classes[known], args.steps) for seed in range(args.members)]
    numbers = [trained(seed, x[known], number_at(x[known]), args.steps) for seed in range(args.members)]
    data = ActiveDataModule(TensorDataset(x, classes), initial=known.tolist())
    left, right, low, high = LIMITS
    grid = torch.cartesian_prod(torch.linspace(left, right, args.side), torch.linspace(low, high, args.side))
    plane = pool_of(grid)
    trainer = L.Trainer(**QUIET)
    args.pictures.mkdir(parents=True, exist_ok=True)
    for strategy, shown, title in strategies(nets, numbers, args.passes):
        regression = isinstance(strategy, acq.PredictiveVariance)
        net = (numbers if regression else nets)[0]
        asked = query(net, data, strategy, ASKED, trainer=trainer).indices
        if isinstance(shown, str):
            values = map_of(shown, net, grid, x[known])
        else:
            values = scores_of(shown, net, plane, trainer)
        name = type(strategy).__name__
        color = numbers_as_colors(x) if regression else np.array(COLORS)[classes]
        picture(args.pictures / f"strategy_{name.lower()}.png", title, values, x, color, known, asked)
        counts = np.bincount(group[asked], minlength=5)
        print(f"{name}: {counts[CLUMP]} of {len(asked)} from the clump, {counts[RARE]} of the rare class")


if __name__ == "__main__":
    main()
