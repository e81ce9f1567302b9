"""You are the oracle: the strategy picks digits, the terminal draws them, you type what they are.

    python examples/label_yourself.py

Type a digit; Enter if you cannot tell (it is never asked for again); q to stop. Every answer is on disk
before the next digit is drawn, so stop as you like: the same command goes on with the next one.
"""

import argparse

import lightning as L
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics.functional import accuracy

from lightning_al import ActiveDataModule, ActiveLearning
from lightning_al import acquisition as acq


class Classifier(L.LightningModule):
    """An ordinary module."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x):
        """Logits of the ten digits."""
        return self.net(x)

    def training_step(self, batch, batch_idx):
        """Cross-entropy with the labels that you typed."""
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def test_step(self, batch, batch_idx):
        """Accuracy."""
        x, y = batch
        self.log("test_acc", accuracy(self(x), y, task="multiclass", num_classes=10))

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def draw(image):
    """A digit of 8 x 8 pixels in blocks, two characters wide to be as high as it is broad."""
    return "\n".join("".join(" ░▒▓█"[round(4 * float(p))] * 2 for p in row) for row in image.reshape(8, 8))


def typed(prompt):
    """A digit, nothing, or q."""
    while True:
        try:
            answer = input(prompt).strip().lower()
        except EOFError:
            return "q"
        if answer in {"", "q", *"0123456789"}:
            return answer


def main():
    """Ask, train, ask again."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--initial", type=int, default=20, help="digits before the first training")
    parser.add_argument("--query-size", type=int, default=10, help="digits a round")
    parser.add_argument("--budget", type=int, default=100, help="labels in all")
    parser.add_argument("--epochs", type=int, default=20, help="epochs a round, of 10 batches each")
    parser.add_argument("--state-dir", default="runs/label_yourself", help="where your labels are kept")
    args = parser.parse_args()
    L.seed_everything(0)

    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
    images = TensorDataset(x[:1297])  # no labels: these come from you

    def ask(indices):
        for count, index in enumerate(indices, start=1):
            print(f"\n{draw(images[index][0])}\n")
            answer = typed(f"[{count}/{len(indices)}] which digit? (Enter: cannot tell, q: stop) ")
            if answer == "q":
                print("Your labels are safe; the same command goes on with this digit.")
                raise SystemExit
            if answer == "":
                data.ignore(index, who="you")
            else:
                data.label(index, int(answer), who="you")
        return [None] * len(indices)  # all answers are on record already

    data = ActiveDataModule(
        images, test_set=TensorDataset(x[1297:], y[1297:]), oracle=ask, initial=args.initial,
        batch_size=32, steps_per_epoch=10, state_dir=args.state_dir,
    )  # fmt: skip
    active = ActiveLearning(acq.Margin(), query_size=args.query_size, budget=args.budget)
    model = Classifier()
    trainer = L.Trainer(  # Rich's live display would keep the terminal to itself
        max_epochs=args.epochs, callbacks=[active, TQDMProgressBar()], logger=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    while True:
        trainer.fit(model, datamodule=data)
        trainer.test(model, datamodule=data, verbose=False)
        tested = float(trainer.callback_metrics["test_acc"])
        print(f"{active.row['labeled']} labels by you: {tested:.0%} of 500 other digits are read rightly")
        if active.last_query is None:  # the budget is spent, or no digit is left
            break


if __name__ == "__main__":
    main()
