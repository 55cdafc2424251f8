"""Tables of samples as the evidence writes them."""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pytest


def _table(columns: Mapping[str, object]) -> pa.Table:
    return pa.table(
        {
            name: pa.FixedSizeListArray.from_arrays(pa.array(value.ravel()), value.shape[1])
            if isinstance(value, np.ndarray) and value.ndim == 2
            else value
            for name, value in columns.items()
        }
    )


@pytest.fixture
def table() -> Callable[[Mapping[str, object]], pa.Table]:
    """A function from columns to a table; an array [n, k] becomes a column of fixed-size lists."""
    return _table
