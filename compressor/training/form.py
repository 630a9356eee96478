"""Whether a state out of a file has the form of the one that this run would write itself; it must never change either.

The run is asked for its own state first. What grows on the way (moments of an optimizer, tensors that a hook takes up)
has the form of the parameter that it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from compressor.asking.recipe import Recipe
from compressor.errors import CompressError, TrainingError
from compressor.narrowing import is_dict, is_mapping, is_row
from compressor.schema import read_as
from compressor.training.optimizer import build_optimizer
from compressor.training.records import EpochRecord

T = TypeVar("T")

_ADVICE = "it is damaged or not of this run; delete it and start again without --resume"


def check_fit_state(given: Mapping[str, Any], own: Mapping[str, Any], recipe: Recipe, module: nn.Module) -> None:
    """Nothing, when `given` can be taken up where `own`, the fit's state before its first epoch, would be.

    Raises:  TrainingError naming the first entry that does not fit.
    """
    _same_keys(given, own, "fit")
    for key in ("module", "recipe", "seed", "scaler"):
        check_form(given[key], own[key], key)
    if given["best_state"] is not None:
        check_form(given["best_state"], own["module"], "best_state")
    _check_optimizer(given["optimizer"], own["optimizer"], recipe, module)
    check_form(given["hooks"], own["hooks"], "hooks", dict(module.named_parameters(remove_duplicate=False)))
    history = plain_as(list[EpochRecord], given["history"], "history")
    if [record.epoch for record in history] != list(range(1, len(history) + 1)) or len(history) > recipe.epochs:
        raise _refused("history", f"is no list of the epochs 1 to at most {recipe.epochs}")
    plain_as(str | None, given["stopped"], "stopped")  # type: ignore[arg-type]
    plain_as(int, given["steps"], "steps")


def check_form(given: object, own: object, where: str, parameters: Mapping[str, Tensor] | None = None) -> None:
    """Nothing, when both have the same keys, kinds of values, and sizes and types of tensors.

    With `parameters`, a dictionary of tensors by their names may hold others of them than `own` does.

    Raises:  TrainingError naming the first place where they differ.
    """
    if isinstance(own, Tensor):
        _check_tensor(given, own, own.dtype, where)
    elif is_mapping(own):
        if parameters is not None and own.keys() <= parameters.keys() and _is_by_parameter(given, own):
            _check_by_parameter(given, own, where, parameters)
            return
        _same_keys(given, own, where)
        assert is_mapping(given)
        for key, value in own.items():
            check_form(given[key], value, f"{where}.{key}", parameters)
    elif is_row(own):
        if not is_row(given) or type(given) is not type(own) or len(given) != len(own):
            raise _refused(where, f"is no {type(own).__name__} of {len(own)} values")
        for i, (part, expected) in enumerate(zip(given, own, strict=True)):
            check_form(part, expected, f"{where}.{i}", parameters)
    else:
        kinds = (int, float) if type(own) is float else (type(own),)
        if type(given) not in kinds:
            raise _refused(where, f"is {type(given).__name__}, and {type(own).__name__} in this run")


def plain_as(kind: type[T], value: object, where: str) -> T:
    """`read_as` in words of a resume point."""
    try:
        return read_as(kind, value, TrainingError, f"resume point: {where}")
    except CompressError as error:
        raise TrainingError(f"{error}\n{_ADVICE}") from error


def _check_optimizer(given: object, own: Mapping[str, Any], recipe: Recipe, module: nn.Module) -> None:
    """The groups are this run's but for the rate, which every step sets; the moments are those of its optimizer."""
    _same_keys(given, own, "optimizer")
    assert is_mapping(given)
    check_form(given["param_groups"], own["param_groups"], "optimizer.param_groups")
    for i, (found, expected) in enumerate(zip(given["param_groups"], own["param_groups"], strict=True)):
        differing = [key for key in expected if key != "lr" and found[key] != expected[key]]
        if differing:
            raise _refused(f"optimizer.param_groups.{i}", f"was made with another {differing[0]}")
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    ordered = [*(p for p in trained if p.dim() >= 2), *(p for p in trained if p.dim() < 2)]
    states, kept = given["state"], _kept_by(recipe)
    if not is_dict(states) or not all(type(key) is int and 0 <= key < len(ordered) for key in states):
        raise _refused("optimizer.state", "is no table by the numbers of this run's parameters")
    for number, state in states.items():
        where = f"optimizer.state.{number}"
        _same_keys(state, kept, where)
        own_parameter = ordered[int(number)]
        for name, example in kept.items():
            if isinstance(example, Tensor) and example.dim():
                _check_tensor(state[name], own_parameter, own_parameter.dtype, f"{where}.{name}")
            else:
                check_form(state[name], example, f"{where}.{name}")


def _kept_by(recipe: Recipe) -> dict[str, Any]:
    """What the recipe's optimizer keeps of a parameter, seen on one of a single number."""
    one = nn.Linear(1, 1, bias=False)
    optimizer = build_optimizer(one, recipe)
    one.weight.grad = one.weight.detach().clone()
    optimizer.step()
    return dict(optimizer.state[one.weight])


def _check_tensor(given: object, own: Tensor, dtype: Any, where: str) -> None:
    if not isinstance(given, Tensor):
        raise _refused(where, f"is {type(given).__name__}, where a tensor should be")
    if given.shape != own.shape or given.dtype != dtype or given.is_sparse:
        raise _refused(where, f"is {given.dtype} {list(given.shape)}, and {dtype} {list(own.shape)} in this run")


def _is_by_parameter(given: object, own: Mapping[Any, Any]) -> bool:
    return is_mapping(given) and all(isinstance(value, Tensor) for value in (*given.values(), *own.values()))


def _check_by_parameter(given: Any, own: Mapping[str, Any], where: str, parameters: Mapping[str, Tensor]) -> None:
    kinds = {tensor.dtype for tensor in own.values()}
    for name, tensor in given.items():
        if name not in parameters:
            raise _refused(where, f"holds {str(name)[:60]!r}, which is no parameter of this run")
        allowed = tensor.dtype if tensor.dtype in kinds or not kinds else next(iter(kinds))
        _check_tensor(tensor, parameters[name], allowed, f"{where}.{name}")
    missing = own.keys() - given.keys()
    if missing:
        raise _refused(where, f"lacks {min(missing)}")


def _same_keys(given: object, own: Mapping[Any, Any], where: str) -> None:
    if not is_mapping(given):
        raise _refused(where, f"is {type(given).__name__}, where a table should be")
    if given.keys() != own.keys():
        wrong = sorted(map(str, given.keys() ^ own.keys()))
        raise _refused(where, f"has or lacks {wrong[0][:60]!r}")


def _refused(where: str, what: str) -> TrainingError:
    return TrainingError(f"resume point: {where} {what}\n{_ADVICE}")
