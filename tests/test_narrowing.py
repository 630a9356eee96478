from __future__ import annotations

from collections import OrderedDict
from types import MappingProxyType

import pytest

from compressor.narrowing import is_dict, is_list, is_mapping, is_row

VALUES = {"dict": {1: 2}, "ordered": OrderedDict(), "view": MappingProxyType({}), "list": [], "tuple": (), "text": "ab"}


@pytest.mark.parametrize(
    ("question", "said_of"),
    [
        (is_dict, {"dict", "ordered"}),
        (is_mapping, {"dict", "ordered", "view"}),
        (is_list, {"list"}),
        (is_row, {"list", "tuple"}),
    ],
)
def test_each_question_is_asked_of_the_class(question, said_of) -> None:
    assert {name for name, value in VALUES.items() if question(value)} == said_of
