"""Flags by sex, age, view and scanner with exact intervals."""

from dataclasses import replace

import pytest

from medical.subgroups import Member, interval, subgroups
from tests.medical.test_contract import INSTANCE


def test_the_table():
    members = [Member(INSTANCE, True), Member(replace(INSTANCE, sex="M", age=61.0), False), Member(INSTANCE, False)]
    rows = {(row.attribute, row.value): row for row in subgroups(members)}
    assert (rows["sex", "F"].patients, rows["sex", "F"].flagged) == (2, 1)
    assert (rows["age", "50-59"].patients, rows["age", "60-69"].patients) == (2, 1)
    assert ("view", "PA") in rows


def test_attributes_of_which_nothing_is_known_are_left_out():
    members = [Member(replace(INSTANCE, sex="unknown", age=None), False)]
    assert {row.attribute for row in subgroups(members)} == {"view", "scanner"}


def test_the_interval_is_that_of_clopper_and_pearson():
    low, high = interval(0, 10)  # closed form: 1 - 0.025 ** (1 / 10)
    assert low == 0
    assert high == pytest.approx(1 - 0.025**0.1)


def test_what_one_patient_alone_has_is_not_shown():
    """A name may have been typed into Manufacturer or View Position; great ages identify."""
    members = [Member(INSTANCE, True), Member(INSTANCE, False)]
    members += [Member(replace(INSTANCE, scanner=f"DOE^{n}", view=f"ROE{n}", age=93.0 + 8 * n), False) for n in (0, 1)]
    rows = {(row.attribute, row.value): row.patients for row in subgroups(members)}
    assert rows["scanner", "A B"] == rows["scanner", "others"] == rows["view", "others"] == 2
    assert rows["age", "90 and above"] == 2
    assert not any("DOE" in value or "ROE" in value for _, value in rows)
