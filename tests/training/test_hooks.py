from __future__ import annotations

from compressor.training.hooks import BaseHook, StepHook


def test_base_hook_does_nothing_and_is_a_step_hook() -> None:
    hook: StepHook = BaseHook()
    assert hook.on_gradients() is None and hook.on_update() is None
    assert hook.on_epoch(1) == {} and hook.state_dict() == {}
    assert hook.finished() is False
    assert hook.load_state_dict({}) is None
