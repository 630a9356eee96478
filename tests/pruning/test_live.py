"""Pruning a live module: whatever loop trains it, and whatever stands around the optimizer, cut stays cut."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor import Pruner
from compressor.asking import PruneSettings, Recipe
from compressor.data.arrays import ArraySource
from compressor.errors import ModelError, RatioError, UsageError
from compressor.pruning.live_model import LiveModel, specs_of, unwrapped
from compressor.training.devices import flushed_denormals, seed_epoch
from compressor.training.optimizer import build_optimizer
from compressor.training.schedule import learning_rate
from tests.integrations.processes import run_on_two

METHODS = ("admm", "group-lasso", "magnitude")
STEPS = 40


class WithHelp(nn.Module):
    """Two outputs while it trains: the auxiliary head is no part of the evaluation graph. (N, 1, 8, 8) -> (N, 3)"""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.two = nn.Conv2d(8, 12, 3, padding=1)
        self.aux, self.out = nn.Linear(8 * 64, 3), nn.Linear(12 * 16, 3)

    def forward(self, x: Tensor) -> Any:
        h = self.norm(self.one(x)).relu()
        y = self.out(nn.functional.max_pool2d(self.two(h).relu(), 2).flatten(1))
        return (y, self.aux(h.flatten(1))) if self.training else y


def network(seed: int = 0) -> WithHelp:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return WithHelp()


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(16, 1, 8, 8, generator=generator), torch.randint(0, 3, (16,), generator=generator)


def loss_of(model: nn.Module, step: int) -> Tensor:
    x, y = batch(step)
    given = model(x)
    main, helped = given if isinstance(given, tuple) else (given, given)
    return nn.functional.cross_entropy(main, y) + 0.3 * nn.functional.cross_entropy(helped, y)


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    optimizer.zero_grad()
    loss_of(model, step).backward()
    optimizer.step()


def pruner_of(model: nn.Module, method: str = "admm", **more: Any) -> Pruner:
    return Pruner(
        model, "1x8x8", **{"ratio": "2x", "of": "macs", "method": method, "steps": STEPS, "round_to": 1, **more}
    )


def sgd(model: nn.Module, **more: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), **{"lr": 0.05, "momentum": 0.9, **more})


def is_masked(model: nn.Module, masks: dict[str, Tensor]) -> bool:
    named = dict(unwrapped(model).named_parameters())
    return bool(masks) and all(bool((named[name][~mask] == 0).all()) for name, mask in masks.items())


@pytest.mark.parametrize("method", METHODS)
def test_the_result_compacts_to_what_was_asked(method: str) -> None:
    model = network()
    optimizer = sgd(model)
    pruner = pruner_of(model, method).attach(optimizer)
    for step in range(STEPS):
        plain_step(model, optimizer, step)
    assert pruner.finish() == pruner.finish(), "a second call changes nothing"
    for step in range(5):
        plain_step(model, optimizer, step)
    assert is_masked(model, pruner.masks)
    program = pruner.program()
    smaller, report = compressor.compact(program)
    assert report.agreement is not None
    assert 2.0 <= report.dense_macs / report.compact_macs < 2.3
    x, _ = batch(99)
    model.eval()
    torch.testing.assert_close(smaller.module(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_search_draws_before_it_cuts() -> None:
    model = network()
    optimizer = sgd(model)
    pruner = pruner_of(model).attach(optimizer)
    first = pruner.report().residual
    assert first is not None and pruner.masks == {}
    for step in range(STEPS):
        plain_step(model, optimizer, step)
    last = pruner.report().residual
    assert last is not None and last < 0.3 * first


def test_rounds_of_magnitude_are_spread_over_the_steps() -> None:
    model = network()
    optimizer = sgd(model)
    pruner = pruner_of(model, "magnitude", ratio=4, rounds=4).attach(optimizer)
    cuts = [pruner.report().n_cut]
    for step in range(STEPS):
        plain_step(model, optimizer, step)
        cuts.append(pruner.report().n_cut)
    changes = [i for i in range(1, len(cuts)) if cuts[i] != cuts[i - 1]]
    assert cuts[0] > 0 and changes == [STEPS // 4, STEPS // 2, 3 * STEPS // 4]


def test_what_evaluation_does_not_read_is_left_alone_and_named() -> None:
    model = network()
    optimizer = sgd(model)
    pruner = pruner_of(model, "magnitude").attach(optimizer)
    assert pruner.untouched == pruner.report().untouched == ("aux.weight", "aux.bias")
    plain_step(model, optimizer, 0)
    assert not any(name.startswith("aux") for name in pruner.masks)
    assert bool((model.aux.weight != 0).all())


def test_the_model_keeps_its_mode_and_its_weights() -> None:
    model = network().train()
    model.norm.eval()
    before = copy.deepcopy(model.state_dict())
    pruner_of(model)
    assert model.training and not model.norm.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# What stands around the loop, by framework habit: each cell of the table in docs/training.md.


def with_scaler(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[int], None]:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step(number: int) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, number)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def with_accumulation(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[int], None]:
    def step(number: int) -> None:
        optimizer.zero_grad()
        for part in range(3):
            (loss_of(model, 3 * number + part) / 3).backward()
        optimizer.step()

    return step


def with_clipping(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[int], None]:
    def step(number: int) -> None:
        optimizer.zero_grad()
        loss_of(model, number).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()

    return step


LOOPS = {"AMP": with_scaler, "accumulation": with_accumulation, "clipping": with_clipping}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("habit", LOOPS)
def test_habits_of_loops_keep_working(habit: str, method: str) -> None:
    model = network()
    optimizer = sgd(model)
    pruner = pruner_of(model, method).attach(optimizer)
    step = LOOPS[habit](model, optimizer)
    for number in range(STEPS):
        step(number)
    assert pruner.report().steps == STEPS, "optimizer steps are counted, not backward passes"
    pruner.finish()
    step(0)
    assert is_masked(model, pruner.masks)
    assert 2.0 <= pruner.report().got < 2.3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fused", [False, True])
def test_half_precision_on_a_gpu(method: str, fused: bool) -> None:
    model = network().cuda()
    optimizer, scaler = sgd(model, fused=fused), torch.amp.GradScaler("cuda")
    pruner = pruner_of(model, method).attach(optimizer)
    for number in range(2 * STEPS):
        x, y = (part.cuda() for part in batch(number))
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.float16):
            loss = nn.functional.cross_entropy(model(x)[0], y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    pruner.finish()
    assert is_masked(model, pruner.masks)
    assert compressor.compact(pruner.program())[1].agreement is not None


@pytest.mark.parametrize("method", METHODS)
def test_an_averaged_copy_comes_out_masked(method: str) -> None:
    model = network()
    optimizer = sgd(model)
    ema = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    pruner = pruner_of(model, method).attach(optimizer).follow(ema)
    for step in range(STEPS):
        plain_step(model, optimizer, step)
        ema.update_parameters(model)
    pruner.finish()
    assert is_masked(ema, pruner.masks)
    plain_step(model, optimizer, 0)
    ema.update_parameters(model)
    assert is_masked(ema, pruner.masks), "and stays masked when training goes on"


def test_a_step_that_the_scaler_skips_is_no_step() -> None:
    model = network()
    optimizer = sgd(model)
    pruner = pruner_of(model).attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer.zero_grad()
    scaler.scale(loss_of(model, 0)).backward()
    assert model.out.weight.grad is not None
    model.out.weight.grad[0, 0] = float("inf")
    before = copy.deepcopy(model.state_dict())
    scaler.step(optimizer)
    scaler.update()
    assert pruner.report().steps == 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_gradients_that_a_fused_optimizer_unscales_itself_are_pulled_at_their_scale() -> None:
    def after(scale: float, *, fused: bool) -> Tensor:
        model = network()
        optimizer = sgd(model, fused=fused)
        pruner_of(model, rho=0.5).attach(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        optimizer.zero_grad()
        scaler.scale(loss_of(model, 0)).backward()
        scaler.step(optimizer)
        return model.two.weight.detach().clone()

    plain = after(1.0, fused=False)
    torch.testing.assert_close(after(4096.0, fused=True), plain, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(after(4096.0, fused=False), plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_is_broken_off_goes_on_bit_for_bit(method: str) -> None:
    def begin() -> tuple[WithHelp, torch.optim.Optimizer, Pruner]:
        model = network()
        return model, (optimizer := sgd(model)), pruner_of(model, method).attach(optimizer)

    whole, optimizer, pruner = begin()
    for step in range(STEPS):
        plain_step(whole, optimizer, step)
    pruner.finish()

    model, optimizer, broken = begin()
    for step in range(STEPS // 2):
        plain_step(model, optimizer, step)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "pruner": broken.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    model = network()
    resumed = pruner_of(model, method)
    model.load_state_dict(state["model"])
    optimizer = sgd(model)
    optimizer.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["pruner"])
    resumed.attach(optimizer)
    for step in range(STEPS // 2, STEPS):
        plain_step(model, optimizer, step)
    resumed.finish()
    assert all(torch.equal(pruner.masks[name], mask) for name, mask in resumed.masks.items())
    assert all(torch.equal(whole.state_dict()[name], value) for name, value in model.state_dict().items())


def test_a_state_of_other_settings_is_refused() -> None:
    state = pruner_of(network(), ratio="3x").state_dict()
    with pytest.raises(UsageError, match="other settings"):
        pruner_of(network()).load_state_dict(state)
    with pytest.raises(UsageError, match="version 9"):
        pruner_of(network()).load_state_dict({**state, "version": 9})


PARALLEL = """
import json, os, sys
import torch
import torch.distributed as dist
sys.path.insert(0, sys.argv[2])
from tests.pruning.test_live import METHODS, STEPS, loss_of, network, pruner_of, sgd
dist.init_process_group("gloo")
rank, found = dist.get_rank(), {}
for method in METHODS:
    model = torch.nn.parallel.DistributedDataParallel(network(), find_unused_parameters=True)
    optimizer = sgd(model)
    pruner = pruner_of(model, method).attach(optimizer)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, 2 * step + rank).backward()
        optimizer.step()
    pruner.finish()
    weights = {name: value.tolist() for name, value in model.module.named_parameters()}
    masks = {name: mask.tolist() for name, mask in pruner.masks.items()}
    found[method] = {"weights": weights, "masks": masks, "got": pruner.report().got}
open(f"{sys.argv[1]}/found.{rank}", "w").write(json.dumps(found))
dist.barrier()
dist.destroy_process_group()
sys.stderr.flush()
os._exit(0)
"""


def test_two_processes_cut_the_same(tmp_path: Path) -> None:
    run_on_two(PARALLEL, tmp_path)
    one, two = (json.loads((tmp_path / f"found.{rank}").read_text()) for rank in range(2))
    assert one == two
    assert all(2.0 <= found["got"] < 2.3 for found in one.values())


class Plain(nn.Module):
    """As `WithHelp` without help: what the tool's own loop trains too."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.two, self.out = nn.Conv2d(8, 12, 3, padding=1), nn.Linear(12 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.two(self.norm(self.one(x)).relu()).relu()
        return self.out(nn.functional.max_pool2d(h, 2).flatten(1))


@pytest.mark.parametrize("method", METHODS)
def test_the_tools_loop_and_a_bare_loop_end_with_the_same_weights(method: str, data: ArraySource) -> None:
    recipe = Recipe(epochs=3, batch_size=32, optimizer="sgd", lr=0.05, schedule="constant")
    asked: dict[str, Any] = {"ratio": 2.0, "of": "macs", "method": method, "round_to": 1}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        model = Plain()
    dense = compressor.capture(copy.deepcopy(model), specs_of("1x8x8"))
    trained = {"retrain_recipe": recipe} if method == "magnitude" else {"prune_recipe": recipe}
    pruned, _ = compressor.prune(dense, PruneSettings(**asked, **trained), data=data)

    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = build_optimizer(model, recipe)
    n_steps = len(list(data.batches("train", 32, seed=0)))
    pruner = Pruner(model, "1x8x8", **asked, steps=3 * n_steps).attach(optimizer)
    with flushed_denormals():
        for epoch in range(3):
            seed_epoch(torch.device("cpu"), 0, epoch + 1, 0)
            model.train()
            for step, part in enumerate(data.batches("train", 32, seed=0, epoch=epoch)):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(recipe, epoch, step, n_steps)
                optimizer.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(model(*part.inputs), part.target).backward()
                optimizer.step()
    pruner.finish()
    program = pruner.program()
    assert set(pruned.masks) == set(program.masks)
    assert all(torch.equal(pruned.masks[name], mask) for name, mask in program.masks.items())
    for name, tensor in pruned.module.tensors().items():
        if tensor.is_floating_point():  # batch norms count batches too, which nothing reads
            assert torch.equal(tensor, program.module.tensors()[name]), name


def test_masks_alone_hold_in_another_loop() -> None:
    first = network()
    optimizer = sgd(first)
    pruner = pruner_of(first, "magnitude").attach(optimizer)
    program = pruner.program()
    second = network()
    second.load_state_dict(first.state_dict())
    optimizer = sgd(second)
    under = Pruner.under_masks(second, program).attach(optimizer)
    for step in range(3):
        plain_step(second, optimizer, step)
    assert is_masked(second, dict(program.masks))
    assert compressor.compact(under.program())[1].agreement is not None
    with pytest.raises(ModelError, match=r"one\.weight: the model has no such parameter"):
        Pruner.under_masks(nn.Linear(2, 2), program)


def test_a_wrapped_model_is_found_in_its_wrapper() -> None:
    model = network()
    assert unwrapped(torch.optim.swa_utils.AveragedModel(model)).state_dict().keys() == model.state_dict().keys()
    compiled = torch.compile(model, backend="eager")
    assert unwrapped(compiled) is model  # type: ignore[arg-type]
    holder = nn.Module()
    holder.module, holder.other = model, nn.Linear(2, 2)
    assert unwrapped(holder) is holder, "a model with a part called module is no wrapper"
    assert pruner_of(compiled).untouched == ("aux.weight", "aux.bias")  # type: ignore[arg-type]


class Holder(nn.Module):
    """A network in something that has losses and metrics beside it."""

    def __init__(self, net: nn.Module, name: str = "net") -> None:
        super().__init__()
        self.loss = nn.Linear(2, 2)
        self.add_module(name, net)


def test_a_model_with_a_prefix_before_its_names_is_found_in_what_holds_it() -> None:
    first = network()
    pruner = pruner_of(first, "magnitude").attach(sgd(first))
    program = pruner.program()
    holder = Holder(network())
    under = Pruner.under_masks(holder, program)
    assert is_masked(holder.net, under.masks) and under.untouched == ("aux.weight", "aux.bias")
    ema = torch.optim.swa_utils.AveragedModel(Holder(network()))
    pruner.follow(ema)
    assert is_masked(ema.module.net, pruner.masks)
    with pytest.raises(ModelError, match="is it the network that was pruned"):
        Pruner.under_masks(Holder(nn.Linear(3, 3)), program)


def test_layers_with_adapters_are_to_be_merged_first() -> None:
    model = network()
    program = pruner_of(model, "magnitude").attach(sgd(model)).program()
    adapted: Any = network()
    adapted.two = Holder(adapted.two, "base_layer")
    with pytest.raises(ModelError, match=r"two.weight: .* merge its adapters"):
        Pruner.under_masks(adapted, program)


def test_a_parameter_that_was_replaced_is_named() -> None:
    model = network()
    optimizer = sgd(model)
    pruner = pruner_of(model).attach(optimizer)
    model.two.weight = nn.Parameter(model.two.weight.detach().clone())
    with pytest.raises(ModelError, match=r"two\.weight: was replaced while the model was pruned"):
        plain_step(model, optimizer, 0)
    with pytest.raises(ModelError, match=r"two\.weight"):
        pruner.finish()


def test_a_model_that_computes_something_else_gives_no_program() -> None:
    model = network()
    pruner = pruner_of(model, "magnitude").attach(sgd(model))
    assert pruner.program().masks
    model.forward = lambda x: WithHelp.forward(model, 2 * x)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="computes something else than when it was captured"):
        pruner.program()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"steps": 0}, "say over how many optimizer steps"),
        ({"score": "taylor", "method": "magnitude"}, "takes gradients of its own"),
        ({"score": "activation", "method": "magnitude"}, "makes runs of its own"),
        ({"alternate": True}, "alternate is of the tool's own loop"),
        ({"stages": 2}, "stages above 1"),
        ({"settings": PruneSettings(ratio=2)}, "give settings or single values, not both"),
        ({"ratio": "much"}, "--ratio much: not a ratio"),
    ],
)
def test_what_a_live_pruning_cannot_do_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        pruner_of(network(), **asked)


def test_an_infeasible_ratio_is_found_before_training() -> None:
    with pytest.raises(RatioError, match="largest feasible"):
        pruner_of(network(), ratio="1000x")


def test_attaching_wrongly_is_refused() -> None:
    model = network()
    pruner = pruner_of(model)
    with pytest.raises(UsageError, match="holds no parameter of the model"):
        pruner.attach(sgd(network(1)))
    pruner.attach(sgd(model))
    with pytest.raises(UsageError, match="attached already"):
        pruner.attach(sgd(model))
    pruner.detach()
    pruner.attach(sgd(model))


def test_inputs_are_tensors_texts_or_specifications() -> None:
    ids = torch.tensor([[1, 7, 3]])
    assert [(s.shape, s.dtype, s.high) for s in specs_of((torch.zeros(2, 3, 4), ids))] == [
        ((None, 3, 4), "float32", None),
        ((None, 3), "int64", 8),
    ]
    assert specs_of("3x4")[0].shape == (None, 3, 4)
    with pytest.raises(UsageError, match="input 0 is a list"):
        specs_of([[1, 2]])


def test_a_model_that_cannot_be_copied_says_so() -> None:
    model = network()
    model.lock = open(__file__)  # noqa: SIM115  # what deepcopy cannot take
    with pytest.raises(ModelError, match="cannot be copied: TypeError"):
        LiveModel(model).captured("1x8x8")
    model.lock.close()
