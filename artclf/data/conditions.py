"""Conditions on the rows of a catalogue, in one form that both SQLite and pyarrow are asked with.

A condition is a tuple of column, operator and value, such as `("width", ">=", 500)`. Values never
become part of a query's text: SQLite gets them as parameters, pyarrow as scalars.
"""

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

from artclf.base.errors import InputError
from artclf.base.settings import shown

COMPARISONS = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}  # in SQL
OPERATORS = (*COMPARISONS, "in", "not in")
OF_ORDER = ("<", "<=", ">", ">=")
KINDS = {"TEXT": "a text", "INTEGER": "a whole number", "REAL": "a number"}
WHOLE_NUMBERS = range(-(2**63), 2**63)  # that SQLite and Parquet hold
MOST_VALUES = 30_000  # of all conditions together: SQLite takes 32,766 parameters


class Condition(NamedTuple):
    column: str
    operator: str
    value: Any


def checked(where: Iterable[tuple] | None, kinds: Mapping[str, str]) -> list[Condition]:
    """The conditions in `where` with plain values; `kinds` maps each column to TEXT, INTEGER or REAL.

    Raises InputError for a column or operator that there isn't, and a value that isn't of the kind
    of its column: SQLite and pyarrow would compare such values differently. Also for the order of
    texts: among those of `year`, '900' would come after '1885', and 'c. 1890' after both.
    """
    if isinstance(where, str | bytes | Mapping):
        raise InputError(f"where is {shown(where)}: take a list of (column, operator, value)")
    conditions = [_checked(condition, kinds) for condition in where or ()]
    if sum(_count(condition.value) for condition in conditions) > MOST_VALUES:
        raise InputError(f"where has more than {MOST_VALUES} values: ask several times")
    return conditions


def check_columns(columns: Iterable[str] | None, known: Iterable[str]) -> list[str] | None:
    """The names in `columns` as a list, None for all. Raises InputError for one that isn't `known`."""
    if columns is None:
        return None
    if isinstance(columns, str):
        raise InputError(f"columns is {shown(columns)}: take a list of names")
    names = list(columns)
    for name in names:
        _check_column(name, known)
    if not names or len(set(names)) < len(names):
        raise InputError(f"columns is {shown(names)}: name at least one, and none twice")
    return names


def quoted(name: str) -> str:
    """The name of a column or table as SQL quotes it."""
    return '"' + name.replace('"', '""') + '"'


def as_sql(conditions: Iterable[Condition]) -> tuple[str, list]:
    """A text for SQL's WHERE, and the values of its parameters. A row without a value fulfils only
    `("column", "==", None)`.
    """
    texts, values = ["1"], []
    for column, operator, value in conditions:
        name = quoted(column)
        if value is None:
            texts.append(f"{name} IS {'NOT ' if operator == '!=' else ''}NULL")
        elif operator in COMPARISONS:
            texts.append(f"{name} {COMPARISONS[operator]} ?")
            values.append(value)
        else:
            marks = ", ".join("?" * len(value))
            texts.append(f"({name} IS NOT NULL AND {name} {operator.upper()} ({marks}))")
            values += value
    return " AND ".join(texts), values


def as_filter(conditions: Iterable[Condition], schema):
    """The pyarrow Expression that holds for the same rows as `as_sql`; None for no conditions.
    `schema` is the pyarrow Schema of the table.
    """
    result = None
    for condition in conditions:
        expression = _expression(condition, schema.field(condition.column).type)
        result = expression if result is None else result & expression
    return result


def _expression(condition: Condition, kind):
    import pyarrow as pa
    import pyarrow.compute as pc

    column, operator, value = condition
    field = pc.field(column)
    if value is None:
        return field.is_valid() if operator == "!=" else field.is_null()
    if operator == "in":
        return field.is_valid() & field.isin(pa.array(value, kind))
    if operator == "not in":
        return field.is_valid() & ~field.isin(pa.array(value, kind))
    scalar = pa.scalar(value, kind)
    return {
        "==": field == scalar,
        "!=": field != scalar,
        "<": field < scalar,
        "<=": field <= scalar,
        ">": field > scalar,
        ">=": field >= scalar,
    }[operator]


def _checked(condition: tuple, kinds: Mapping[str, str]) -> Condition:
    if not isinstance(condition, tuple | list) or len(condition) != 3:
        raise InputError(f"where has {shown(condition)}: a condition is (column, operator, value)")
    column, operator, value = condition
    _check_column(column, kinds)
    if operator not in OPERATORS:
        raise InputError(f"where has {shown(operator)}: the operators are {', '.join(OPERATORS)}")
    if operator in OF_ORDER and kinds[column] == "TEXT":
        raise InputError(
            f"where asks {column} {operator} {shown(value)}, and {column} holds texts: they are equal "
            "or not, take ==, !=, in or not in"
        )
    if operator in ("in", "not in"):
        if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
            raise InputError(f"where asks {column} {operator} {shown(value)}: take a list")
        return Condition(column, operator, [_plain(column, one, kinds[column]) for one in value])
    if value is None and operator in ("==", "!="):
        return Condition(column, operator, None)
    return Condition(column, operator, _plain(column, value, kinds[column]))


def _plain(column: str, value, kind: str) -> str | int | float:
    """`value` as Python's own text or number."""
    if kind == "TEXT" and isinstance(value, str) and _is_unicode(value):
        return str(value)
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    is_whole = isinstance(value, Integral) and is_number and int(value) in WHOLE_NUMBERS
    if kind == "INTEGER" and is_whole:
        return int(value)
    if kind == "REAL" and is_number and (is_whole or not isinstance(value, Integral)):
        number = float(value)
        if number == number:  # nan is no value
            return number
    raise InputError(f"where compares {column} with {shown(value)}: take {KINDS[kind]}")


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold `text`: half of a surrogate pair it can't."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def _check_column(name, known: Iterable[str]):
    if name not in list(known):
        raise InputError(f"there is no column {shown(name)}: the columns are {', '.join(known)}")


def _count(value) -> int:
    return len(value) if isinstance(value, list) else 1
