"""Several GPUs: the script for one, with `devices` and `strategy` in its Trainer.

    python examples/multi_gpu.py                                        # one process on what there is
    python examples/multi_gpu.py --devices 4 --accelerator gpu          # Lightning starts the other three
    python examples/multi_gpu.py --devices 2 --accelerator cpu          # to try it without a GPU
    torchrun --nproc-per-node=4 examples/multi_gpu.py --devices 4 --accelerator gpu

Each process scores its share of the pool, and together they ask for what one process would ask for with the
same weights. Training differs: `batch_size` is of each process, so that two see twice as many samples a
step.

With 120 labels the accuracy was 0.882 on one process and 0.856 on two, in 7 s of processor time each.
"""

import argparse

import lightning as L
import torch
import torch.distributed
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from lightning_al import ActiveDataModule, ActiveLearning, fit_rounds
from lightning_al import acquisition as acq


class Classifier(L.LightningModule):
    """An ordinary module."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        self.accuracy = MulticlassAccuracy(10, average="micro")

    def forward(self, x):
        """Logits of the ten digits."""
        return self.net(x)

    def training_step(self, batch, batch_idx):
        """Cross-entropy."""
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def test_step(self, batch, batch_idx):
        """A metric object adds up the processes; a number would need `sync_dist=True`."""
        x, y = batch
        self.accuracy(self(x), y)
        self.log("test_acc", self.accuracy)

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@rank_zero_only
def show(text):
    """Once, not once a process."""
    print(text)


def main():
    """All processes run this; the ledger is process 0's alone."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=1, help="processes on a node, one a GPU")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--rounds", type=int, default=5, help="queries")
    parser.add_argument("--query-size", type=int, default=20, help="labels a round")
    parser.add_argument("--epochs", type=int, default=10, help="epochs a round, of 10 batches each")
    parser.add_argument("--state-dir", default="runs/multi_gpu", help="where labels and queries are kept")
    args = parser.parse_args()

    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
    data = ActiveDataModule(
        TensorDataset(x[:1297], y[:1297]), test_set=TensorDataset(x[1297:], y[1297:]), initial=20,
        batch_size=max(1, 32 // args.devices),  # of a process
        pool_batch_size=128,  # a block: the same on any number of processes
        steps_per_epoch=10, state_dir=args.state_dir,
    )  # fmt: skip
    active = ActiveLearning(acq.BADGE(), query_size=args.query_size)

    def make_trainer(number):
        return L.Trainer(
            accelerator=args.accelerator, devices=args.devices, num_nodes=args.nodes,
            strategy="ddp" if args.devices * args.nodes > 1 else "auto", max_epochs=args.epochs, logger=False,
            enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
        )  # fmt: skip

    history = fit_rounds(Classifier(), make_trainer, data, active, rounds=args.rounds)
    show(history.to_frame()[["round", "labeled", "asked", "test_acc"]].to_string(index=False))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
