"""A rare class: 5 % of the pool, and what counts is how well it is found.

    python examples/imbalanced.py                            # eights among scikit-learn's digits
    python examples/imbalanced.py --data-root DIR            # healthy among X-rays with pneumonia
    python examples/imbalanced.py --strategy Random

The first labels are of both classes by halves, the strategy gives the predicted classes equal shares of
every query, and the callback `ClassBalance` judges whether the labels fall on fewer classes than random
draws would. The test is of balanced accuracy, the mean of the recalls.

Of 100 asked for, on digits and X-rays, `ClassBalanced` got 36 and 26 of the rare class,
`ClassBalancedRandom` 35 and 27, `Margin` 17 and 26, `Random` 8 and 8. The balanced accuracies in the end
were 0.911 and 0.887, 0.865 and 0.855, 0.911 and 0.905, 0.890 and 0.905: more of a rare class is not in
itself a better model. One run each, in 9 and 16 s of one core.
"""

import lightning as L
import torch
from data_sets import options, rare
from torch import nn
from torchmetrics.classification import MulticlassRecall

from lightning_al import ActiveDataModule, ActiveLearning, ClassBalance, fit_rounds
from lightning_al import acquisition as acq

STRATEGIES = {
    "ClassBalanced": acq.ClassBalanced(acq.Margin()),
    "ClassBalancedRandom": acq.ClassBalanced(acq.Random()),
    "Margin": acq.Margin(),
    "Random": acq.Random(),
}


class Net(L.LightningModule):
    """A small convolutional network whose loss weighs classes by how few labels they have."""

    def __init__(self, side):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * (side // 4) ** 2, 2),
        )  # fmt: skip
        self.register_buffer("weight", torch.ones(2))
        self.recall = MulticlassRecall(2, average="none")

    def forward(self, x):
        """Logits of the two classes."""
        return self.net(x)

    def on_train_start(self):
        """The labels that there are now; how rare a class is in the pool is not known."""
        classes = torch.stack([y for _, y in self.trainer.train_dataloader.dataset])
        counts = classes.bincount(minlength=2).clamp(min=1).float()
        self.weight.copy_(counts.sum() / (2 * counts))

    def training_step(self, batch, batch_idx):
        """Cross-entropy; in the mean over a batch each class has its weight."""
        x, y = batch
        return nn.functional.cross_entropy(self(x), y, weight=self.weight)

    def test_step(self, batch, batch_idx):
        """Recall of each class, over all images."""
        x, y = batch
        self.recall.update(self(x), y)

    def on_test_epoch_end(self):
        """Their mean, and that of the rare class."""
        found = self.recall.compute()
        self.log_dict({"test_balanced_acc": found.mean(), "test_rare_recall": found[0]})
        self.recall.reset()

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.AdamW(self.parameters(), 3e-3, weight_decay=0.01)


def main():
    """A simulation: all labels are there, and stay hidden until they are asked for."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("--strategy", choices=STRATEGIES, default="ClassBalanced")
    parser.add_argument("--query-size", type=int, default=20, help="labels to begin with, and asked a round")
    parser.add_argument("--steps", type=int, default=150, help="training batches a round")
    args = parser.parse_args()

    train_set, test_set = rare(args.data_root)
    classes = train_set.tensors[1]
    data = ActiveDataModule(
        train_set, test_set=test_set, initial=args.query_size, initial_balanced=True, batch_size=20,
        pool_batch_size=256, steps_per_epoch=args.steps, seed=args.seed, state_dir=args.state_dir,
    )  # fmt: skip
    active = ActiveLearning(STRATEGIES[args.strategy], query_size=args.query_size, restart="redraw")

    def make_model(seed):
        torch.manual_seed(seed)
        return Net(train_set[0][0].shape[-1])

    def make_trainer(number):
        return L.Trainer(
            max_epochs=1, callbacks=[ClassBalance(reference="dataset")], logger=False,
            enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
        )  # fmt: skip

    history = fit_rounds(make_model, make_trainer, data, active, rounds=args.rounds)
    columns = ["round", "labeled", "asked", "test_balanced_acc", "test_rare_recall"]
    print(history.to_frame()[columns].to_string(index=False))
    asked = classes[data.labeled_indices[args.query_size :]]
    print(f"of the rare class: {int((classes == 0).sum())} of {len(classes)} in the pool, ", end="")
    print(f"{int((asked == 0).sum())} of the {len(asked)} asked for")


if __name__ == "__main__":
    main()
