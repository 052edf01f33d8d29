"""Values by key, of which those in use are never forgotten."""

from artclf.base.remembered import Remembered


def made_by(made: list, most: int, **options) -> Remembered:
    """Values that are lists with their key, each key also noted in `made`."""

    def make(key):
        made.append(key)
        return [key]

    return Remembered(make, most, **options)


def use(values: Remembered, keys: str):
    for key in keys:
        with values.using(key) as value:
            assert value == [key]


def test_those_used_last_are_remembered():
    made = []
    use(made_by(made, 3), "abcadbac")
    assert made == list("abcdbc")


def test_a_value_in_use_stays_however_many_come():
    made = []
    values = made_by(made, 2)
    with values.using("a") as value:
        use(values, "bcdef")
        with values.using("a") as again:
            assert again is value
        use(values, "ghij")
        with values.using("a") as again:
            assert again is value
        assert len(values) == 2
    use(values, "kla")
    assert made == list("abcdefghijkla")


def test_more_than_most_stay_while_they_are_in_use():
    made = []
    values = made_by(made, 1)
    with values.using("a"), values.using("b"), values.using("c"):
        use(values, "abc")
        assert len(values) == 3
    use(values, "d")
    assert len(values) == 1 and made == list("abcd")


def test_a_value_that_is_needed_stays():
    made = []
    values = made_by(made, 2, is_needed=lambda value: value == ["a"])
    use(values, "abcdea")
    assert made == list("abcde")


def test_what_is_outdated_is_made_anew_when_it_is_not_in_use():
    made = []
    values = made_by(made, 9)
    use(values, "ab")
    with values.using("a") as value:
        values.outdate()
        with values.using("a") as again:
            assert again is value
        use(values, "b")
        assert made == list("abb")
    use(values, "ab")
    assert made == list("abba")
