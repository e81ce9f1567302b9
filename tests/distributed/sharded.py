"""Several processes, each with a part of the module: the ranks write down what they saw."""

import sys
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import lightning as L
import numpy as np
import torch
from integration.small import FEATURES, Net, blobs, margin, pool, quiet
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions
from torch.distributed.fsdp import FullyShardedDataParallel

from distributed.launch import note, rank
from lightning_al import ActiveDataModule, ActiveLearning, Committee, LearningLossMixin, MCDropout, fit_rounds
from lightning_al import acquisition as acq
from lightning_al.callbacks import whole_state
from lightning_al.callbacks.whole_state import copied, state_of
from lightning_al.inference.sharded import FSDPModule, is_sharded, root_of

try:
    from torch.distributed.fsdp import fully_shard
except ImportError:  # before torch 2.6
    from torch.distributed._composable.fsdp import fully_shard

#: What comes out the same on one process and on several, from weights that training does not change.
SAME = {
    "random": lambda: acq.Random(),
    "margin": lambda: acq.Margin(),
    "coreset": lambda: acq.CoreSet(),
    "badge": lambda: acq.BADGE(),
    "given": lambda: acq.CoreSet(embeddings=np.random.default_rng(0).normal(size=(60, 5)).astype("float32")),
    "bald": lambda: acq.BALD(MCDropout(6)),
    "bald_independent": lambda: acq.BALD(MCDropout(6, consistent=False)),
    "two_stage": lambda: acq.TwoStage(acq.BALD(MCDropout(3)), acq.CoreSet(), keep=20),
    "committee": lambda: acq.BALD(Committee(models=[seeded(1), seeded(2)])),
    "committee_and_embeddings": lambda: acq.TwoStage(
        acq.BALD(Committee(models=[seeded(1), seeded(2)])), acq.CoreSet(), keep=20
    ),
    "learning_loss": lambda: acq.LearningLoss(),
    "sequences": lambda: acq.BALD(MCDropout(5, consistent=False)),
}


class Sharded(Net):
    """Its layers are sharded one by one, and what is left of it as a whole; on one process it stays whole."""

    def configure_model(self):
        if self.trainer.world_size == 1 or isinstance(self.net, FSDPModule):
            return
        for part in (self.net[0], self.net[4]):
            fully_shard(part)
        fully_shard(self.net)


class Predicting(LearningLossMixin, Net):
    """With a head, which is sharded too."""

    learning_loss_layers = ("net.0",)
    example_input_array = torch.zeros(2, FEATURES)

    def configure_model(self):
        super().configure_model()
        if self.trainer.world_size == 1 or isinstance(self.net, FSDPModule):
            return
        fully_shard(self.net)
        fully_shard(self.loss_head)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.learning_loss(nn.functional.cross_entropy(self(x), y, reduction="none"))


class Sequences(Net):
    """Dropout in attention and between recurrent layers, and samples on the second axis, half as many."""

    def __init__(self, lr, dropout):
        super().__init__(lr)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=dropout)
        attention = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        recurrent = nn.LSTM(8, 8, 2, dropout=dropout)
        self.net = nn.ModuleList([nn.Linear(FEATURES, 8), attention, recurrent, nn.Linear(8, 3)])

    def forward(self, x):
        first, attention, recurrent, last = self.net
        hidden, _ = recurrent(attention(first(x)[None].repeat(4, 1, 1)))
        return last(hidden[-1])

    def configure_model(self):
        if self.trainer.world_size == 1 or isinstance(self, FSDPModule):
            return
        fully_shard(self.net[1])
        fully_shard(self)


def seeded(seed=0, kind=Net, **options):
    torch.manual_seed(seed)
    return kind(**options)


def options(world, **more):
    """Of a Trainer."""
    if world == 1:
        return more
    strategy = ModelParallelStrategy(data_parallel_size=world, tensor_parallel_size=1)
    return {"strategy": strategy, "devices": world, **more}


def queries(folder, world):
    """What every strategy asks for, and its scores; and whether the module is left as it was."""
    found = {}
    for name, make in SAME.items():
        if name == "sequences":
            module = seeded(kind=Sequences, lr=0.0, dropout=0.3)
        else:
            kind = Predicting if name == "learning_loss" else Sharded
            module = with_statistics(seeded(kind=kind, lr=0.0, dropout=0.3, batch_norm=True))
        active = Watching(make(), query_size=10)
        trainer = quiet(**options(world, max_epochs=1, callbacks=[active]))
        trainer.fit(module, datamodule=pool(folder / name, pool_batch_size=8))
        assert is_sharded(module) == (world > 1)
        query = active.last_query
        found[name] = {
            "indices": query.indices.tolist(), "scores": query.scores.tolist(), "left": active.left
        }  # fmt: skip
    return found


def with_statistics(module):
    """Every rank has those of its own batches; rank 0's are in the checkpoint."""
    norm = module.net[1]
    norm.momentum = 0.0
    norm.running_mean.normal_()
    norm.running_mean += rank()
    return module


class Watching(ActiveLearning):
    """Whether weights, statistics, modes and random numbers are afterwards what they were before."""

    def on_train_start(self, trainer, module):
        with self.watched(module):
            super().on_train_start(trainer, module)

    def on_train_end(self, trainer, module):
        with self.watched(module):
            super().on_train_end(trainer, module)

    def watched(self, module):
        def now():
            modes = [part.training for part in module.modules()]
            kinds = [type(p).__name__ for p in module.parameters()]
            ids = [id(p) for p in module.parameters()]
            return copied(module.state_dict()), modes, kinds, ids, torch.get_rng_state()

        @contextmanager
        def block():
            before = now()
            yield
            after = now()
            same = all(torch.equal(local(v), local(after[0][k])) for k, v in before[0].items())
            same &= before[1:4] == after[1:4] and torch.equal(before[4], after[4])
            self.left = getattr(self, "left", True) and same

        return block()


def local(value):
    return value.to_local() if hasattr(value, "to_local") else value


class Numbered(Sharded):
    """Its embedding is the number of the sample."""

    def active_step(self, batch, batch_idx):
        return {"logits": self(batch[0]), "embeddings": batch[0][:, 3:]}


class Watched(acq.Margin):
    """Which samples were scored, in the rehearsal too."""

    needs = (*acq.Margin().needs, "embeddings")

    def __init__(self):
        super().__init__()
        self.seen = []

    def summarize(self, outputs):
        self.seen += outputs.embeddings.flatten().long().tolist()
        return super().summarize(outputs)


def scored_once(folder, world):
    """Which samples of pools of all odd sizes this rank scored, in blocks of 1 and of 2."""
    found = {}
    for size in sorted({0, 1, world - 1, world, world + 1, 17}):
        samples = blobs(12 + size)
        samples.tensors[0][:, 3] = torch.arange(12 + size)
        data = ActiveDataModule(
            samples, initial=range(12), batch_size=4, pool_batch_size=2 if size == 17 else 1,
            state_dir=folder / str(size),
        )  # fmt: skip
        watched = Watched()
        active = ActiveLearning(watched, query_size=5)
        trainer = quiet(**options(world, max_epochs=1, callbacks=[active]))
        trainer.fit(seeded(kind=Numbered, batch_norm=True, lr=0.0), datamodule=data)
        asked = [] if active.last_query is None else active.last_query.indices.tolist()
        found[str(size)] = {"seen": watched.seen, "asked": asked, "digest": data.state.digest()}
    return found


class Beginning(L.Callback):
    """The whole weights that every fit begins and ends with."""

    def __init__(self, into):
        self.into = into

    def on_train_start(self, trainer, module):
        self.into.append(whole(module))

    def on_train_end(self, trainer, module):
        self.into.append(whole(module))


def whole(module):
    state = state_of(root_of(module.trainer, module))
    return [round(float(v.double().sum()), 5) for k, v in sorted(state.items()) if v.is_floating_point()]


def restarts(folder, world):
    """Weights at the beginning and end of each round, for both ways to loop."""
    found = {}
    for restart in ("initial", "redraw", "shrink_perturb", "warm"):
        seen = []
        fit_rounds(
            seeded(kind=Sharded, batch_norm=True),
            lambda r, seen=seen: quiet(**options(world, max_epochs=1, callbacks=[Beginning(seen)])),
            pool(folder / restart, test_set=blobs(21, 1)), margin(restart=restart), rounds=2,
        )  # fmt: skip
        found[restart] = seen
    seen = []
    active = margin()
    data = pool(folder / "repeated")
    trainer = quiet(**options(world, max_epochs=1, callbacks=[Beginning(seen), active]))
    module = seeded(kind=Sharded, batch_norm=True)
    for _ in range(3):
        trainer.fit(module, datamodule=data)
    found["repeated"] = seen
    seen = []
    history = fit_rounds(
        lambda seed: seeded(seed, kind=Sharded),
        lambda r: quiet(**options(world, max_epochs=1, callbacks=[Beginning(seen)])),
        pool(folder / "made"), margin(restart="redraw"), rounds=1,
    )  # fmt: skip
    found["made"] = seen
    found["labeled"] = history.column("labeled")
    return found


class BestIsFirst(Sharded):
    """Its metric is best after the first epoch."""

    def on_train_epoch_end(self):
        self.log("worse", float(self.current_epoch), sync_dist=True)
        self.epochs.append(whole(self))


def best(folder, world, *, in_parts):
    """Weights after each epoch, when the pool is scored, and at the end."""
    seen = []

    class Looking(ActiveLearning):
        def _choose(self, trainer, module, *args):
            with self._scored_weights(trainer, module):
                seen.append(whole(module))
            return super()._choose(trainer, module, *args)

    module = seeded(kind=BestIsFirst)
    module.epochs = []
    given = options(world, max_epochs=3, enable_checkpointing=True)
    if world > 1:
        given["strategy"] = ModelParallelStrategy(
            data_parallel_size=world, tensor_parallel_size=1, save_distributed_checkpoint=in_parts
        )
    active = Looking(acq.Margin(), query_size=8, score_with="best")
    checkpoint = ModelCheckpoint(monitor="worse", dirpath=folder / "best")
    trainer = quiet(callbacks=[checkpoint, active], **given)
    trainer.fit(module, datamodule=pool(folder / "data"))
    return {"epochs": module.epochs, "scored": seen, "ended": whole(module)}


def resumed(folder, world):
    """A fit that was interrupted goes on from its checkpoint."""

    class Interrupted(L.Callback):
        def on_train_epoch_end(self, trainer, module):
            if trainer.current_epoch == 1:
                raise ArithmeticError("interrupted")

    def make(number, *callbacks):
        checkpoint = ModelCheckpoint(dirpath=folder / "checkpoints")
        given = options(world, max_epochs=3, enable_checkpointing=True)
        return quiet(callbacks=[checkpoint, *callbacks, Beginning(seen)], **given)

    seen = []
    with suppress(ArithmeticError):
        fit_rounds(
            seeded(kind=Sharded), lambda r: make(r, Interrupted()), pool(folder / "data"), margin(), rounds=1
        )
    first = len(seen)
    history = fit_rounds(
        seeded(kind=Sharded), make, pool(folder / "data"), margin(), rounds=1, resume="checkpoint"
    )
    return {"begun": seen[:first], "went_on": seen[first:], "labeled": history.column("labeled")}


def wrapped(folder, world):
    """Under the older FSDP: three fits for each of some of the strategies that it allows."""
    found = {}
    for name, restart in (
        ("margin", "initial"),
        ("coreset", "warm"),
        ("badge", "initial"),
        ("given", "warm"),
        ("random", "redraw"),
    ):
        seen = []

        def make(number, seen=seen):
            return wrapping(world, callbacks=[Beginning(seen), ModelCheckpoint(monitor="train_loss")])

        history = fit_rounds(
            lambda seed: seeded(seed, batch_norm=True),
            make,
            pool(folder / name, pool_batch_size=8),
            ActiveLearning(
                SAME[name](), query_size=5, restart=restart, score_with="best" if name == "badge" else "last"
            ),
            rounds=2,
        )  # fmt: skip
        found[name] = {"labeled": history.column("labeled"), "weights": seen}
    return found


def refused_wrapped(folder, world):
    """What the older FSDP does not allow, before training."""
    found = {}
    for name, active in {
        "passes": ActiveLearning(acq.BALD(MCDropout(4)), query_size=5),
        "redraw": margin(restart="redraw"),
        "shrink_perturb": margin(restart="shrink_perturb"),
    }.items():
        trainer = wrapping(world, callbacks=[active])
        try:
            trainer.fit(seeded(dropout=0.3), datamodule=pool(folder / name))
        except Exception as error:
            found[name] = f"{trainer.global_step} steps, {type(error).__name__}: {error}"
    module, data = seeded(), pool(folder / "again")
    try:
        for _ in range(2):
            wrapping(world, callbacks=[margin()]).fit(module, datamodule=data)
    except Exception as error:
        found["again"] = f"{type(error).__name__}: {error}"
    for name, model, given in (
        ("same", seeded(), {}),
        ("tested", lambda seed: seeded(seed), {"test_set": blobs(21, 1)}),
    ):
        try:
            fit_rounds(
                model, lambda r: wrapping(world), pool(folder / name, **given), margin(), rounds=1
            )  # fmt: skip
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


class OnCPU(FSDPStrategy):
    """Lightning and torch have the older FSDP for GPUs only; most of it works on CPUs.

    What does not: copies to the CPU are none there, and what they are of is freed.
    """

    def _setup_model(self, model):
        return FullyShardedDataParallel(
            model, device_id=torch.device("cpu"), sharding_strategy=self.sharding_strategy, **self.kwargs
        )

    def lightning_module_state_dict(self):
        return whole_state.get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True))

    def optimizer_state(self, optimizer):
        return {}


@contextmanager
def without_copies_to_the_cpu():
    def options(**given):
        return StateDictOptions(**{**given, "cpu_offload": False})

    def state(*given, **more):
        found = own(*given, **more)
        return found if rank() == 0 else {}

    own = whole_state.get_model_state_dict
    whole_state.StateDictOptions, whole_state.get_model_state_dict = options, state
    yield
    whole_state.StateDictOptions, whole_state.get_model_state_dict = StateDictOptions, own


def wrapping(world, **more):
    if torch.cuda.is_available():
        more |= {"accelerator": "gpu", "strategy": "fsdp"}
    else:
        policy = {nn.Linear} if "by_layer" in sys.argv else None
        more["strategy"] = OnCPU(process_group_backend="gloo", auto_wrap_policy=policy)
    return quiet(devices=world, max_epochs=1, enable_checkpointing=True, **more)


# ---------------------------------------------------------------------- what goes wrong


class Failing(Sharded):
    """What is wrong is wrong on one rank only, and not in the rehearsal."""

    what = ""
    on = 1

    def active_step(self, batch, batch_idx):
        late = self.trainer.global_step > 0 and rank() == self.on
        if late and self.what == "inside":
            raise ArithmeticError("the model cannot count")
        logits = self(batch[0])
        return logits * torch.nan if late and self.what == "nan" else logits


class FailingMargin(acq.Margin):
    def summarize(self, outputs):
        self.calls = getattr(self, "calls", 0) + 1
        if rank() == 1 and self.calls == 3:
            raise ArithmeticError("the strategy cannot count")
        return super().summarize(outputs)


class Again(Sharded):
    """Shards what is sharded."""

    def configure_model(self):
        fully_shard(self.net)


class Alone(Net):
    def configure_model(self):
        pass


class Tensors(Net):
    def configure_model(self):
        from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

        plan = {"net.0": ColwiseParallel(), "net.4": RowwiseParallel()}
        parallelize_module(self, self.device_mesh["tensor_parallel"], plan)


def fit(name, module, acquisition=None, *, folder=None, rounds=1, strategy=None, **more):
    active = ActiveLearning(acquisition or acq.Margin(), query_size=8, **more)
    given = options(2, max_epochs=1, callbacks=[active])
    if strategy is not None:
        given["strategy"] = strategy
    trainer = quiet(**given)
    try:
        for _ in range(rounds):
            trainer.fit(module, datamodule=pool(Path(folder or name), pool_batch_size=8))
        note(name, f"asked {len(active.last_query)}")
    except (Exception, SystemExit) as error:
        text = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
        note(name, f"{trainer.global_step} steps, {text}")


def wider():
    module = seeded(kind=Sharded)
    module.net[0], module.net[4] = nn.Linear(FEATURES, 9), nn.Linear(9, 3)
    return module


def failing(what, **more):
    module = seeded(kind=Failing, **more)
    module.what = what
    return module


def refused():
    fit("nan", failing("nan"))
    fit("nan_in_passes", failing("nan", dropout=0.3), acq.BALD(MCDropout(4)))
    fit("nan_on_embeddings", failing("nan"), acq.BADGE())
    fit("summarize", failing(""), FailingMargin())
    fit("no_dropout", seeded(kind=Sharded), acq.BALD(MCDropout(4)))
    fit("again", seeded(kind=Again), rounds=2)
    fit("first", seeded(kind=Sharded))
    fit("other_model", seeded(kind=Sharded, batch_norm=True), folder="first")
    fit("other_width", wider(), folder="first")
    fit("alone", seeded(kind=Alone))
    fit("tensors", seeded(kind=Tensors), strategy=ModelParallelStrategy())
    fit("checkpoints", seeded(kind=Sharded), acq.BALD(Committee(models=["a.ckpt", "b.ckpt"])))
    try:
        fit_rounds(
            seeded(kind=Sharded), lambda r: quiet(**options(2)), pool(Path("trained")),
            ActiveLearning(acq.BALD(Committee(2)), query_size=4), rounds=1,
        )  # fmt: skip
    except Exception as error:
        note("trained", f"{type(error).__name__}: {error}")
    try:
        fit_rounds(
            seeded(kind=Sharded, dropout=0.3), lambda r: quiet(**options(2)),
            pool(Path("tested"), test_set=blobs(21, 1)), margin(test_posterior=MCDropout(4)), rounds=1,
        )  # fmt: skip
    except Exception as error:
        note("tested", f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    what, world = sys.argv[1], int(sys.argv[2])
    if what == "same":
        note("queries", queries(Path("queries"), world))
        note("once", scored_once(Path("once"), world))
    elif what == "weights":
        note("restarts", restarts(Path("restarts"), world))
        note("best_in_parts", best(Path("parts"), world, in_parts=True))
        note("best_whole", best(Path("whole"), world, in_parts=False))
        note("resumed", resumed(Path("resumed"), world))
    elif what == "refused":
        refused()
    elif what == "inside":
        module = failing("inside")
        module.on = int(sys.argv[3])
        quiet(**options(world, max_epochs=1, callbacks=[margin()])).fit(
            module, datamodule=pool(Path("inside"))
        )
    elif what == "wrapped":
        with nullcontext() if torch.cuda.is_available() else without_copies_to_the_cpu():
            note("wrapped", wrapped(Path("wrapped"), world))
            note("refused_wrapped", refused_wrapped(Path("refused"), world))
