"""WEIGHTS: what a round's training begins with, and which of its weights are scored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_al.callbacks.whole_state import (
    changed_whole,
    copied,
    put_state,
    read_checkpoint,
    read_state,
    state_of,
)
from lightning_al.data.book import is_writer
from lightning_al.inference.sharded import is_wrapped
from lightning_al.randomness import preserved_rng
from lightning_al.together import agree
from lightning_al.whole_file import replacing

__all__ = ["Restart", "StoredWeights", "best_weights", "redraw", "save_whole"]

Restart = Literal["initial", "redraw", "shrink_perturb", "warm"]

_SHRINK, _PERTURB = 0.6, 0.01


class StoredWeights:
    """The weights that rounds begin with, kept in the state directory.

    Args:
        folder: The state directory.
        restart: `"initial"`: those of round 0; `"redraw"`: new random ones; `"warm"`: those the last round
            ended with; `"shrink_perturb"`: these shrunk to 0.6, plus 0.01 of new random ones (Ash & Adams,
            "On Warm-Starting Neural Network Training", 2020, section 5).
    """

    def __init__(self, folder: Path, restart: Restart) -> None:
        self.folder, self.restart = folder, restart

    def begin(
        self, module: nn.Module, number: int, seed: int, *, drawn: bool = False, redraws: bool = False
    ) -> None:
        """Put the weights that round `number` begins with into `module`, in place.

        Args:
            module: After `configure_model`, on its device.
            number: The round.
            seed: Of new random weights.
            drawn: The module is fresh from a factory: with `"redraw"` it stays as it is.
            redraws: The first weights are not those of the module, but drawn anew.

        Raises:
            RuntimeError: If the weights do not fit the module, or those of the last round were not kept.
            ValueError: If weights are to be drawn anew, in this round or in others, that cannot be.
        """
        if redraws or (self.restart == "redraw" and not drawn):  # now, and not after a round's training
            _check_redraw(module)
        if self.restart == "shrink_perturb":
            _check_redraw(module, keep_frozen=True)
        initial = read_state(lambda: _load(self._initial), module)
        if initial is None:
            if redraws:
                redraw(module, seed)
            self._keep(module, self._initial)
            return
        if self.restart == "redraw" and drawn:
            return
        _put(module, initial, self._initial)
        if number == 0 or self.restart == "initial":
            return
        if self.restart == "redraw":
            redraw(module, seed)
            return
        last = agree(lambda: self._last(number))
        _put(module, read_state(lambda: _read(last), module) or {}, last)
        if self.restart == "shrink_perturb":
            changed_whole(module, lambda: _shrink_perturb(module, seed))

    def remember(self, module: nn.Module) -> None:
        """Keep the weights as those that the run began with, unless there are such already."""
        if not agree(self._initial.exists):
            self._keep(module, self._initial)

    def end(self, module: nn.Module, number: int) -> None:
        """Keep what the next round begins with, if it begins with this one's weights."""
        keeps = self.restart in ("warm", "shrink_perturb")
        if keeps:
            self._keep(module, self._after(number))
        if not is_writer():
            return
        for other, file in self._kept().items():
            if not keeps or other < number - 1:  # else they would one day pass for the last round's
                file.unlink(missing_ok=True)

    def _keep(self, module: nn.Module, path: Path) -> None:
        state = state_of(module)
        if is_writer():
            save_whole(state, path)

    @property
    def _initial(self) -> Path:
        return self.folder / "initial_weights.pt"

    def _after(self, number: int) -> Path:
        return self.folder / f"weights_{number}.pt"

    def _kept(self) -> dict[int, Path]:
        return {int(file.stem.split("_")[1]): file for file in self.folder.glob("weights_*.pt")}

    def _last(self, number: int) -> Path:
        """Of the newest round before this one; a round may have been asked for without any fit."""
        kept = self._kept()
        before = [other for other in kept if other < number]
        if not before:
            raise RuntimeError(
                f"`restart={self.restart!r}` begins round {number} with the last round's weights, but there "
                f"are none in {self.folder}: that round was trained with another `restart`, that keeps none, "
                'or did not end. Use `restart="initial"` or "redraw", or another `state_dir`.'
            )
        return kept[max(before)]


def redraw(module: nn.Module, seed: int, *, keep_frozen: bool = False) -> None:
    """Draw every parameter anew by its layer's own `reset_parameters`.

    Args:
        module: Changed in place.
        seed: Of the new weights.
        keep_frozen: What does not learn stays as it is, instead of being refused.

    Raises:
        ValueError: If a parameter belongs to a layer that has none, or is frozen.
    """
    _check_redraw(module, keep_frozen=keep_frozen)
    changed_whole(module, lambda: _redraw(module, seed, keep_frozen=keep_frozen))


def _redraw(module: nn.Module, seed: int, *, keep_frozen: bool = False) -> None:
    kept = [(p, p.detach().clone()) for p in module.parameters() if keep_frozen and not p.requires_grad]
    with preserved_rng(seed), torch.no_grad():
        for layer in module.modules():
            reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
            if callable(reset) and not (keep_frozen and _frozen(layer)):
                reset()
        for parameter, value in kept:
            parameter.copy_(value)


def _frozen(layer: nn.Module) -> bool:
    own = list(layer.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)


def _check_redraw(module: nn.Module, *, keep_frozen: bool = False) -> None:
    without = []
    for name, layer in module.named_modules():
        if keep_frozen and _frozen(layer):
            continue
        has = any(callable(getattr(layer, f, None)) for f in ("reset_parameters", "_reset_parameters"))
        if not has and any(True for _ in layer.parameters(recurse=False)):
            without += [f"{name}.{p}".lstrip(".") for p, _ in layer.named_parameters(recurse=False)]
    if without:
        raise ValueError(
            f'`restart="redraw"` cannot draw {without[:5]} anew, nor can a committee for its members: their '
            "layers have no `reset_parameters`. Give them one, or pass `fit_rounds` a function from a seed "
            "to a fresh module."
        )
    frozen = [name for name, p in module.named_parameters() if not (p.requires_grad or keep_frozen)]
    if frozen:
        raise ValueError(
            f"The weights {frozen[:5]} are frozen (`requires_grad=False`), so perhaps pre-trained, but "
            '`restart="redraw"`, and a committee for its members, would draw them anew. Pass a function that '
            "makes the module with the weights it is to keep: `fit_rounds(lambda seed: ..., ...)`."
        )


def _shrink_perturb(module: nn.Module, seed: int) -> None:
    """What is frozen stays as it is."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    last = [parameter.detach().clone() for parameter in learning]
    _redraw(module, seed, keep_frozen=True)
    with torch.no_grad():
        for parameter, old in zip(learning, last, strict=True):
            parameter.mul_(_PERTURB).add_(old, alpha=_SHRINK)


@contextmanager
def best_weights(trainer: L.Trainer, module: nn.Module) -> Iterator[None]:
    """The weights of the best checkpoint in `module`, for the block only."""
    path = agree(lambda: getattr(trainer.checkpoint_callback, "best_model_path", ""))
    if not path:
        raise RuntimeError(
            '`score_with="best"` found no best checkpoint: none was saved in this fit. Let its monitored '
            'metric be logged at least once, or use `score_with="last"`.'
        )
    now = copied(state_of(module) if is_wrapped(module) else module.state_dict())
    best = read_checkpoint(Path(path), module)
    try:
        put_state(module, best)
        yield
    finally:
        put_state(module, now)


def _load(path: Path) -> dict[str, Any] | None:
    return _read(path) if path.exists() else None


def _read(path: Path) -> dict[str, Any]:
    # A layer's extra state may be any object, as in a checkpoint.
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
    return state


def save_whole(state: dict[str, Any], path: Path) -> None:
    """Write tensors, on the CPU, and whatever else; whole or not at all.

    Raises:
        OSError: If the disk is full, or the folder cannot be written.
    """
    whole = tree_map(
        lambda value: value.detach().cpu().clone() if isinstance(value, Tensor) else value, state
    )
    with replacing(path, "Weights") as part, part.open("wb") as file:
        try:
            torch.save(whole, file)
        except RuntimeError as error:  # so torch says that a disk is full
            raise OSError(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error


def _put(module: nn.Module, state: dict[str, Any], path: Path) -> None:
    try:
        put_state(module, state)
    except RuntimeError as error:
        raise RuntimeError(
            f"The model does not fit the weights in {path}, with which this run began ({error}). Use the "
            "same model, or another `state_dir`."
        ) from error
