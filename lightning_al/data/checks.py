"""Arguments that do not fit: one message that says what was given, what is needed, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, IterableDataset

from lightning_al.ledger.indices import as_indices

__all__ = [
    "check_answers",
    "check_class_names",
    "check_flag",
    "check_lightning",
    "check_loader_options",
    "check_map_style",
    "check_no_other",
    "check_options",
    "check_positive",
    "check_trainable",
]


def check_lightning(trainer: Any) -> None:
    """Refuse a Trainer of the other package: its classes are not these classes."""
    if trainer is not None and not isinstance(trainer, L.Trainer):
        kind = f"{type(trainer).__module__.split('.')[0]}.{type(trainer).__name__}"
        raise MisconfigurationException(
            f"The Trainer is a {kind}, but lightning_al is built on `lightning`; the two packages do "
            "not mix. Write `import lightning as L` and use `L.Trainer` and `L.LightningModule`."
        )


def check_map_style(**sets: Any) -> None:
    """Refuse what has no length or no items by index."""
    for name, dataset in sets.items():
        if dataset is None and name != "train_set":
            continue
        check_no_other(**{name: dataset})
        has = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        if isinstance(dataset, IterableDataset) or not has:
            raise TypeError(
                f"`{name}` is a {type(dataset).__name__}, which has no samples by index; a pool needs a "
                "data set with `__getitem__` and `__len__`. Write the stream to disk, or list its files."
            )
        if name == "train_set" and len(dataset) == 0:
            raise ValueError(
                "`train_set` is empty; at least one sample is needed. Pass the samples that have labels, "
                "or all samples with `oracle`."
            )


def check_positive(**values: Any) -> None:
    """Refuse sizes and counts below 1."""
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"`{name}` is {value!r}; needed is a whole number, 1 or more.")
        if value < 1:
            raise ValueError(f"`{name}` is {value}; it must be at least 1.")


def check_answers(resolve: Any, min_answered: Any) -> None:
    """Refuse a rule that is none, and a share outside of what there is."""
    if not (callable(resolve) or resolve == "newest"):
        raise ValueError(
            f'`resolve` is {resolve!r}; needed is "newest", or a function from a list of `Answer` to the '
            "label or `None`. Pass one of them."
        )
    if isinstance(min_answered, bool) or not isinstance(min_answered, int | float | np.number):
        raise TypeError(f"`min_answered` is {min_answered!r}; needed is a share such as 0.8. Pass a number.")
    if not 0 < min_answered <= 1:
        raise ValueError(
            f"`min_answered` is {min_answered}; needed is a share above 0, and 1 for all of a query. For 16 "
            "of 20 samples write 0.8."
        )


def check_class_names(class_names: Sequence[str] | None) -> None:
    """Refuse a name of several classes: a label by that name could mean one of them only."""
    names = [str(name) for name in (() if class_names is None else class_names)]
    double = _first_double(names)
    if double is not None:
        raise ValueError(
            f"`class_names` holds {double!r} more than once, as classes "
            f"{[number for number, name in enumerate(names) if name == double]}; a name must mean one class. "
            "Give each class a name of its own."
        )


def check_flag(**values: Any) -> None:
    """Refuse what is neither true nor false: any text would count as true."""
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"`{name}` is {value!r}; needed is `True` or `False`. Pass one of them.")


def check_no_other(**sets: Any) -> None:
    """Refuse what is close to a data set, but is none."""
    for name, dataset in sets.items():
        if isinstance(dataset, Mapping | DataLoader) or hasattr(dataset, "iloc"):
            raise TypeError(
                f"`{name}` is a {type(dataset).__name__}; needed is a data set, whose `[0]` is its first "
                f"sample. {_how_to_list(dataset)}"
            )


def _how_to_list(dataset: Any) -> str:
    if isinstance(dataset, DataLoader):
        return "Pass the loader's `.dataset`, or use `ActiveDataModule.from_dataloaders(train, val, test)`."
    if isinstance(dataset, Mapping):
        return "Pass one of its values if these are data sets, or a list with one mapping a sample."
    return 'Pass its rows: `frame.to_dict("records")`.'


def check_loader_options(options: Mapping[str, Any]) -> None:
    """Refuse what would take it out of our hands which samples a loader gives."""
    ours = {"dataset", "batch_size", "shuffle", "sampler", "batch_sampler", "collate_fn", "drop_last"}
    bad = sorted(ours & set(options))
    if bad:
        raise ValueError(
            f"`loader_options` holds {bad}, but which samples make a batch is for the data module to say. "
            "Leave them out; `batch_size`, `collate_fn` and `drop_last` are arguments of its own, and "
            "training is always shuffled."
        )


def check_options(
    size: int,
    *,
    initial: int | Sequence[int],
    has_unlabeled_set: bool,
    oracle: Any,
    ids: Sequence[Any] | None,
    on_existing: str,
    initial_balanced: bool,
) -> None:
    """Refuse options that contradict each other or the data set."""
    if isinstance(initial, bool | np.bool_ | float | str) or initial is None:
        raise TypeError(
            f"`initial` is {initial!r}; needed is how many samples (a whole number) or which (indices). "
            "For a share, write `initial=len(train_set) // 10`."
        )
    if isinstance(initial, int | np.integer):
        if not 0 <= initial <= size:
            raise ValueError(
                f"`initial` is {initial}, but the data set has {size:,} samples. Ask for 0 to {size:,}."
            )
    else:
        as_indices(initial, size, "initial")
    given = not isinstance(initial, int | np.integer) or initial > 0
    if has_unlabeled_set and given:
        raise ValueError(
            "`initial` was given together with `unlabeled_set`, where all of `train_set` is labelled from "
            "the start. Leave one of them out."
        )
    if not (callable(oracle) or oracle in ("dataset", "people")):
        raise ValueError(
            f'`oracle` is {oracle!r}; needed is "dataset", "people", or a function from indices to targets.'
        )
    if initial_balanced and (oracle != "dataset" or not isinstance(initial, int | np.integer)):
        raise ValueError(
            "`initial_balanced=True` draws by class, so it needs `initial` as a number and "
            '`oracle="dataset"`. Leave it out, or choose the indices yourself.'
        )
    if on_existing not in ("resume", "error"):
        raise ValueError(f'`on_existing` is {on_existing!r}; needed is "resume" or "error".')
    if ids is not None:
        _check_ids([str(name) for name in ids], size)


def _check_ids(ids: list[str], size: int) -> None:
    if len(ids) != size:
        raise ValueError(f"`ids` has {len(ids):,} names for {size:,} samples; needed is one each.")
    double = _first_double(ids)
    if double is not None:
        raise ValueError(f"`ids` holds {double!r} more than once; a name must mean one sample.")


def _first_double(names: list[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def check_trainable(labels: int, world_size: int) -> None:
    """Refuse a fit without labels, or with fewer than there are devices."""
    if labels == 0:
        raise RuntimeError(
            "There is no labelled sample to train on. Give a first set: `initial=20` (drawn at random) or "
            "`initial=[...]`, `data.label(indices, targets)`, or let a strategy that needs no labels "
            "choose it: `query(model, data, acquisition, 20, commit=True)`. With `last_rounds`, the newest "
            "rounds must hold a label."
        )
    if labels < world_size:
        raise RuntimeError(
            f"There are {labels} labelled samples for {world_size} devices; each needs one at least. Train "
            "on fewer devices or start with a larger `initial`."
        )
