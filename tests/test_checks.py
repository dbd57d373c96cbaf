"""The checks of types and shapes are there: without them half of the tests would protect less than they seem to."""

import jaxtyping
import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation

from ragdiff_jax.data.pipeline import global_rows
from ragdiff_jax.evaluation.claims.generating import ious
from ragdiff_jax.models.structure_net import StructureNetConfig


def test_shapes_that_do_not_fit_together_are_refused():
    masks = np.ones((2, 8, 8), bool)
    assert ious(masks, masks).tolist() == [1.0, 1.0]
    with pytest.raises(jaxtyping.TypeCheckError):
        ious(masks, masks[:1])


def test_types_are_refused_where_there_is_no_array():
    with pytest.raises(BeartypeCallHintViolation):
        global_rows("10", 5, seed=0)
    with pytest.raises(BeartypeCallHintViolation):
        StructureNetConfig(vision=np.zeros(2))
