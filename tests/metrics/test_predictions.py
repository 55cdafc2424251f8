"""Softmax statistics against torch, and the way through a parquet file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from robusteval.metrics.predictions import Predictions


def _logits(n: int, classes: int, scale: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(classes)
    return (rng.normal(size=(n, classes)) * scale).astype(np.float32), rng.integers(0, classes, n)


@pytest.mark.parametrize(("classes", "kept"), [(2, 2), (10, 10), (100, 100), (101, 10), (1000, 10)])
def test_statistics_equal_those_of_torch_in_float64(classes: int, kept: int) -> None:
    logits, labels = _logits(40, classes)
    got = Predictions.from_logits(logits, labels)
    exact = torch.from_numpy(logits).double()
    reference = torch.distributions.Categorical(logits=exact)
    p = exact.softmax(1)
    rows = torch.arange(40)
    np.testing.assert_array_equal(got.predictions, exact.argmax(1))
    np.testing.assert_allclose(got.confidences, p.amax(1), rtol=1e-12)
    np.testing.assert_allclose(got.logsumexp, exact.logsumexp(1), rtol=1e-12)
    np.testing.assert_array_equal(got.label_logit, exact[rows, torch.from_numpy(labels)])
    np.testing.assert_allclose(got.sum_p2, (p**2).sum(1), rtol=1e-12)
    np.testing.assert_allclose(got.entropy, reference.entropy(), rtol=1e-10, atol=1e-14)
    top = exact.topk(kept, 1)
    np.testing.assert_array_equal(got.top_classes, top.indices)
    np.testing.assert_array_equal(got.top_logits, top.values)


def test_ties_go_to_the_first_class_as_in_torch() -> None:
    logits = np.array([[1, 3, 3, 0], [2, 2, 2, 2], [0, 0, 0, 5]], dtype=np.float32)
    got = Predictions.from_logits(logits, np.zeros(3, dtype=np.int64))
    assert got.predictions.tolist() == [1, 0, 3] == torch.from_numpy(logits).argmax(1).tolist()
    assert got.top_classes[1].tolist() == [0, 1, 2, 3]
    many = np.zeros((1, 1000), dtype=np.float32)
    many[0, 500:] = 1
    assert Predictions.from_logits(many, np.zeros(1, dtype=np.int64)).top_classes.tolist() == [list(range(500, 510))]


@pytest.mark.parametrize("classes", [60, 150])
def test_top_classes_are_those_of_a_stable_sort_even_with_ties_and_without_numbers(classes: int) -> None:
    rng = np.random.default_rng(1)
    logits = rng.integers(0, 5, (50, classes)).astype(np.float32)
    logits[7], logits[8, 3:], logits[9, 4], logits[10, 1:] = np.nan, -np.inf, np.inf, np.nan
    got = Predictions.from_logits(logits, np.zeros(50, dtype=np.int64))
    expected = np.argsort(-logits, axis=1, kind="stable")[:, : got.top_classes.shape[1]]
    np.testing.assert_array_equal(got.top_classes, expected)
    np.testing.assert_array_equal(got.predictions, expected[:, 0])


def test_huge_logits_do_not_overflow() -> None:
    got = Predictions.from_logits(np.array([[3e38, -3e38], [1e4, 1e4]], dtype=np.float32), np.array([0, 1]))
    assert got.confidences.tolist() == [1.0, 0.5]
    assert got.entropy.tolist() == [0.0, pytest.approx(np.log(2))]
    assert np.isfinite(got.logsumexp).all()


def test_a_row_that_is_not_finite_is_wrong_and_has_no_statistics() -> None:
    nan, inf = np.nan, np.inf
    logits = np.array([[0, 2, 1], [nan, 2, 1], [0, inf, 1], [nan, nan, nan], [-inf, 2, 1]], dtype=np.float32)
    got = Predictions.from_logits(logits, np.array([1, 1, 1, 0, 1]))
    assert got.predictions.tolist() == [1, 1, 1, 0, 1]
    assert got.correct.tolist() == [True, False, False, False, False]
    assert got.correct_top5 is not None
    assert got.correct_top5.tolist() == [True, False, False, False, False]
    assert got.usable.tolist() == [True, False, False, False, False]
    for name in ("confidences", "label_logit", "logsumexp", "sum_p2", "entropy"):
        assert np.isnan(getattr(got, name)).tolist() == [False, True, True, True, True], name
    kept = got.finite()
    assert len(kept) == 1
    assert kept.classes == 3
    assert kept.top_logits.tolist() == [[2, 1, 0]]


def test_top5_looks_at_five_classes() -> None:
    logits = np.tile(np.arange(8, dtype=np.float32), (8, 1))
    got = Predictions.from_logits(logits, np.arange(8))
    assert got.correct_top5 is not None
    assert got.correct_top5.tolist() == [False, False, False, True, True, True, True, True]
    assert got.correct.tolist() == [False] * 7 + [True]


@pytest.mark.parametrize("classes", [3, 100, 250])
def test_columns_come_back_from_a_parquet_file(classes: int, table, tmp_path: Path) -> None:
    logits, labels = _logits(23, classes)
    logits[4, 1] = np.nan
    written = Predictions.from_logits(logits, labels)
    columns = {"label": labels.astype(np.int32), **written.columns("attacked")}
    pieces = pa.concat_tables(
        [table({name: value[rows] for name, value in columns.items()}) for rows in (slice(0, 9), slice(9, 23))]
    )
    pq.write_table(pieces, tmp_path / "samples.parquet", row_group_size=7)
    got = Predictions.from_samples(pq.read_table(tmp_path / "samples.parquet"), "attacked", classes)
    for name in vars(written):
        np.testing.assert_array_equal(getattr(got, name), getattr(written, name), err_msg=name)
    again = Predictions.from_samples(pieces, "attacked", classes)
    np.testing.assert_array_equal(again.top_logits, written.top_logits)


def test_columns_have_the_names_and_types_of_the_table_of_samples() -> None:
    got = Predictions.from_logits(*_logits(4, 300)).columns("clean")
    assert {name: (value.dtype.name, value.shape[1:]) for name, value in got.items()} == {
        "clean_prediction": ("int32", ()),
        "clean_confidence": ("float64", ()),
        "clean_label_logit": ("float64", ()),
        "clean_logsumexp": ("float64", ()),
        "clean_sum_p2": ("float64", ()),
        "clean_entropy": ("float64", ()),
        "clean_top_logits": ("float32", (10,)),
        "clean_top_classes": ("int32", (10,)),
    }


def test_no_image_is_a_table_too(table) -> None:
    none = Predictions.from_logits(np.empty((0, 10), dtype=np.float32), np.empty(0, dtype=np.int64))
    read = Predictions.from_samples(table({"label": np.empty(0, np.int32), **none.columns("clean")}), "clean", 10)
    assert len(read) == 0
    assert read.top_classes.shape == (0, 10)


def test_probabilities_are_the_softmax_where_every_logit_is_kept() -> None:
    logits, labels = _logits(20, 100)
    p = Predictions.from_logits(logits, labels).probabilities()
    assert p is not None
    np.testing.assert_allclose(p, torch.from_numpy(logits).double().softmax(1), rtol=1e-12)
    assert Predictions.from_logits(*_logits(20, 101)).probabilities() is None


def test_what_a_survey_leaves_unknown_is_not_made_up() -> None:
    """A survey keeps the first class alone; even one such row leaves top-5 and the full softmax unknown."""
    known = Predictions.from_logits(*_logits(3, 8))
    top_classes, top_logits = known.top_classes.copy(), known.top_logits.copy()
    top_classes[1, 1:], top_logits[1, 1:] = -1, np.nan
    got = replace(known, top_classes=top_classes, top_logits=top_logits)
    assert got.correct_top5 is None
    assert got.probabilities() is None
    assert got.usable.all()
    np.testing.assert_array_equal(got.correct, known.correct)


@pytest.mark.parametrize("name", ["confidences", "label_logit", "logsumexp", "sum_p2", "entropy"])
def test_one_statistic_that_is_not_finite_spoils_its_row(name: str) -> None:
    known = Predictions.from_logits(*_logits(3, 8))
    for bad in (np.nan, np.inf, -np.inf):
        values = getattr(known, name).copy()
        values[2] = bad
        assert replace(known, **{name: values}).usable.tolist() == [True, True, False]
