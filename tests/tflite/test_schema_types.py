"""The types say what the generated schema has."""

from __future__ import annotations

import pytest
from ai_edge_litert import schema_py_generated

from graphcut.tflite import schema_types

TYPES = [name for name, value in vars(schema_types).items() if isinstance(value, type) and name.endswith("T")]


@pytest.mark.parametrize("name", TYPES)
def test_a_type_has_the_fields_of_the_schema(name: str) -> None:
    assert set(getattr(schema_types, name).__annotations__) == set(vars(getattr(schema_py_generated, name)()))


def test_there_are_types() -> None:
    assert {"ModelT", "SubGraphT", "TensorT", "OperatorT", "BufferT", "QuantizationParametersT"} <= set(TYPES)
