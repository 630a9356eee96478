"""What a file promises, as plain values: which ports are sound, which sizes open, what is fixed, grown and rounded."""

from __future__ import annotations

import math

import pytest
import torch

from compressor.errors import ModelError
from compressor.program import InputSpec, Interface
from compressor.program.interface import Port, open_name

IMAGE = Port("x", "float32", ("n", 3, "height", "width"))
SPEC = InputSpec("x", (None, 3, 8, 8))


def one(port: Port) -> Interface:
    return Interface((port,), (Port("y", "float32"),))


@pytest.mark.parametrize(
    "port",
    [
        IMAGE,
        Port("x", "", None),
        Port("x", "float16", (1, "n")),
        Port("x", "float32", ()),
        Port("k", "int64", (), 3.0),
        Port("k", "int64", None, 3.0),
        Port("k", "float32", (1, 1), -0.5),
    ],
)
def test_what_a_tensor_may_be_is_sound(port: Port) -> None:
    assert port.is_sound


@pytest.mark.parametrize(
    "port",
    [
        Port("x", "float33", (1,)),
        Port("x", "float32", ("n", 0)),
        Port("x", "float32", ("n", -1)),
        Port("k", "float32", (), math.nan),
        Port("k", "float32", (), math.inf),
        Port("k", "float32", (2,), 1.0),
        Port("k", "float32", (1, 3), 1.0),
    ],
)
def test_what_no_tensor_is_is_not_sound_and_refused(port: Port) -> None:
    assert not port.is_sound
    interface = Interface((IMAGE,), (port,))
    with pytest.raises(ModelError, match="a type, a size or a number that is not valid; the file is damaged"):
        interface.check([SPEC], 1)


def test_sizes_with_names_behind_the_first_are_open() -> None:
    assert IMAGE.open_sizes() == (2, 3)
    assert Port("x", "float32").open_sizes() == Port("x", "float32", ("n", 4)).open_sizes() == ()
    assert one(IMAGE).has_open_sizes and not one(Port("x", "float32", ("n", 3))).has_open_sizes
    bound = Port("x", "float32", ("n", "m"), 1.0)
    assert not one(bound).has_open_sizes and one(bound).read == () and one(IMAGE).read == (IMAGE,)


def test_halves_are_those_of_sixteen_bits() -> None:
    assert [Port("x", name).is_half for name in ("float16", "bfloat16", "float32", "int64", "")] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_sizes_become_those_of_the_network_but_for_those_that_stay_open() -> None:
    fixed = one(IMAGE).with_fixed_sizes([SPEC])
    assert fixed.inputs[0].shape == ("n", 3, 8, 8) and fixed.outputs == one(IMAGE).outputs
    assert one(IMAGE).with_fixed_sizes([SPEC], [(3,)]).inputs[0].shape == ("n", 3, 8, "width")
    for untouched in (
        Port("x", "float32"),
        Port("x", "float32", ("n", 3)),
        Port("other", "float32", ("n", 3, "h", "w")),
    ):
        assert one(untouched).with_fixed_sizes([SPEC]).inputs == (untouched,)


def test_an_interface_is_that_of_its_network() -> None:
    one(IMAGE).check([SPEC], 1)
    Interface((Port("k", "int64", (), 2.0), IMAGE), ()).check([SPEC], 0)
    one(Port("x", "float32")).check([SPEC], 1)
    for interface, specs, n_outputs in (
        (one(IMAGE), [SPEC], 2),
        (one(IMAGE), [InputSpec("z", (None, 3, 8, 8))], 1),
        (one(IMAGE), [SPEC, SPEC], 1),
    ):
        with pytest.raises(ModelError, match=r"its interface has the inputs \['x'\] and 1 outputs, the network"):
            interface.check(specs, n_outputs)
    with pytest.raises(ModelError, match="not valid; the file is damaged"):
        one(Port("x", "float32", ("n", 3, 8))).check([SPEC], 1)


def test_inputs_arrive_as_the_types_of_the_file_hold_them() -> None:
    x = torch.tensor([1.0, 1 / 3, 70000.0])
    half, whole = one(Port("x", "float16")).rounded([x]), one(IMAGE).rounded([x])
    assert whole[0] is x and half[0].dtype == torch.float32
    assert half[0].tolist() == [1.0, 0.333251953125, math.inf]


def test_the_last_open_size_grows_or_all_others() -> None:
    def grown(port: Port, last: bool) -> tuple[int | None, ...]:
        return one(port).grown([SPEC], last)[0].shape

    assert grown(IMAGE, True) == (None, 3, 8, 16) and grown(IMAGE, False) == (None, 3, 16, 8)
    alone = Port("x", "float32", ("n", 3, "height", 8))
    assert grown(alone, True) == grown(alone, False) == (None, 3, 16, 8)
    assert grown(Port("x", "float32", ("n", 3, 8, 8)), False) == SPEC.shape
    free = InputSpec("x", (None, 3, None, 8))
    assert one(IMAGE).grown([free], False)[0].shape == (None, 3, None, 8), "what is free has no size to double"


def test_open_sizes_keep_names_that_are_words() -> None:
    assert [open_name(told, 2) for told in ("height", "a b", "", "2h", "ä")] == [
        "height",
        "a_b",
        "size_2",
        "size_2",
        "_",
    ]
    assert open_name("", 0) == "batch" and open_name("n" * 50, 0) == "n" * 40
