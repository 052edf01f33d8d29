"""Tests of extras: what is missing is named, with the command that brings it."""

import pytest

from artclf.base.extras import advice, require


def test_what_is_installed_is_no_error():
    require("dev", "pytest", "json")


def test_what_is_missing_is_named_with_the_extra_that_brings_it():
    with pytest.raises(ImportError) as error:
        require("lab", "nonsense", "pytest", "folly")
    assert str(error.value) == (
        'this needs nonsense and folly: run pip install -e ".[lab]" in the clone of artclf'
    )


def test_an_import_that_the_extra_train_would_mend_says_so():
    missing = ModuleNotFoundError("No module named 'scipy.sparse'", name="scipy.sparse")
    expected = 'this needs scipy: run pip install -e ".[train]" in the clone of artclf'
    assert advice(missing) == expected
    other = ModuleNotFoundError("No module named 'folly'", name="folly")
    assert advice(other) == "No module named 'folly'"
    assert advice(ValueError("scipy")) == "scipy"
