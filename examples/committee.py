"""A committee: several models, trained apart each round, ask for what they contradict each other on.

    python examples/committee.py                        # three different structures
    python examples/committee.py --size 5               # five of one structure
    python examples/committee.py --size 5 --bootstrap   # each on labels drawn with replacement

`fit_rounds` trains the members one after the other, each with its own seed, weights and order of the data.
The query is by the mean divergence of the members from what they say together, and the test is of the
committee's mean prediction. With `--state-dir`, the same command goes on after a stop, with the first
member that is not trained yet.
"""

import argparse
import functools

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics.functional import accuracy

from lightning_al import ActiveDataModule, ActiveLearning, Committee, fit_rounds
from lightning_al import acquisition as acq


class Digits(L.LightningModule):
    """Any network from `(1, 8, 8)` images to ten logits."""

    def __init__(self, net, lr):
        super().__init__()
        self.net, self.lr = net, lr

    def forward(self, x):
        """Logits; in a test of the committee, those of the mean prediction."""
        return self.net(x)

    def training_step(self, batch, batch_idx):
        """Cross-entropy."""
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def test_step(self, batch, batch_idx):
        """Accuracy of the committee; for comparison that of its last member, which is this module."""
        x, y = batch
        score = functools.partial(accuracy, target=y, task="multiclass", num_classes=10)
        self.log_dict({"test_acc": score(self(x)), "member_acc": score(self.net(x))})

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.Adam(self.parameters(), self.lr)


# A member is a function from a seed to a module: what it returns may be of any structure.


def linear(seed):
    """No hidden layer."""
    torch.manual_seed(seed)
    return Digits(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), lr=1e-2)


def convolutional(seed):
    """Looks at neighbouring pixels."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)
    )
    return Digits(net, lr=3e-3)


def perceptron(seed):
    """One hidden layer."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return Digits(net, lr=3e-3)


def main():
    """A simulation on handwritten digits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, help="members of one structure instead of three structures")
    parser.add_argument("--bootstrap", action="store_true", help="labels of each drawn with replacement")
    parser.add_argument("--rounds", type=int, default=5, help="queries")
    parser.add_argument("--query-size", type=int, default=10, help="labels a round")
    parser.add_argument("--epochs", type=int, default=15, help="epochs a round, of 10 batches each")
    parser.add_argument("--state-dir", help="where labels and queries are kept; default: a fresh folder")
    args = parser.parse_args()

    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(y)
    data = ActiveDataModule(
        TensorDataset(x[:1297], y[:1297]), test_set=TensorDataset(x[1297:], y[1297:]),
        initial=20, batch_size=32, steps_per_epoch=10, state_dir=args.state_dir,
    )  # fmt: skip

    if args.size is None:
        model = None  # the members are all there is
        committee = Committee(models=[linear, convolutional, perceptron], bootstrap=args.bootstrap)
    else:
        model = perceptron
        committee = Committee(args.size, bootstrap=args.bootstrap)
    active = ActiveLearning(acq.ConsensusKL(committee), query_size=args.query_size)

    def make_trainer(number):
        return L.Trainer(
            max_epochs=args.epochs, logger=False, enable_checkpointing=False, enable_model_summary=False,
            enable_progress_bar=False, accelerator="cpu",
        )  # fmt: skip

    history = fit_rounds(model, make_trainer, data, active, rounds=args.rounds)
    print(history.to_frame()[["round", "labeled", "asked", "test_acc", "member_acc"]].to_string(index=False))

    asked = [event for _, event in data.ledger.events() if event.kind == "asked" and event.round > 0]
    for event in asked[:: args.query_size]:  # the first of every query
        digit = y[event.sample]
        print(f"round {event.round}, most wanted: sample {event.sample}, a {digit}, {event.score:.3f} nats")
    for file in sorted((data.state_dir / f"round_{len(history) - 1}").glob("member_*.pt")):
        print("weights:", file)


if __name__ == "__main__":
    main()
