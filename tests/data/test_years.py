"""Years as catalogues write them."""

import numpy as np
import pytest

from artclf.data import years


@pytest.mark.parametrize(
    "text, span",
    [
        ("1889", (1889, 1889)),
        ("1889.0", (1889, 1889)),
        (" c. 1503 ", (1503, 1503)),
        ("ca.1503?", (1503, 1503)),
        ("1503-1506", (1503, 1506)),
        ("1503–06", (1503, 1506)),
        ("1490/96", (1490, 1496)),
        ("1506-1503", (1503, 1506)),
        ("c. 1580–c. 1600", (1580, 1600)),
        ("Late 1630s", (1630, 1639)),
        ("1800s", (1800, 1899)),
        ("1880's", (1880, 1889)),
        ("1880s-90s", (1880, 1899)),
        ("1880s / 1890s", (1880, 1899)),
        ("1890s-00s", (1890, 1899)),
        ("1888-90s", (1888, 1899)),
        ("1889-05", (1889, 1889)),
        ("1889-05-12", (1889, 1889)),
        ("1889-12-30T00:00", (1889, 1889)),
        ("1889-12-30T00:00:00+1030", (1889, 1889)),
        ("1889-05-03 and 1900", (1889, 1900)),
        ("1850-51-52", (1850, 1851)),
        ("12 May 1889", (1889, 1889)),
        ("1872, reworked 1880", (1872, 1880)),
        ("[1650]", (1650, 1650)),
        ("um 1503", (1503, 1503)),
        ("16th century", (1501, 1600)),
        ("15th-16th c.", (1401, 1600)),
        ("after 1630, before 1640", (1630, 1640)),
        ("after 1630, before 1640s", (1630, 1649)),
        *(
            (text, None)
            for text in (
                "",
                "nan",
                "Date unknown",
                "After 1870",
                "before 1503",
                "after 1880s",
                "1503-06 or after",
                "before 1889-05-03",
                "before the 16th century",
                "after 1630 (after 1630)",
                "May 12th",
                "May 12th, Cologne",
                "18891",
                "300 BC",
                "no. 17",
                "<script>",
            )
        ),
    ],
)
def test_a_year_is_read_as_catalogues_write_it(text, span):
    [(first, last)] = years.spans([text]).itertuples(index=False)
    assert (first, last) == span if span else np.isnan(first) and np.isnan(last)


def test_spans_have_a_row_for_each_text_also_where_it_is_no_text():
    table = years.spans([1889.0, None, float("nan"), "c. 1503/06"])
    assert table.columns.tolist() == ["first", "last"] and set(table.dtypes) == {np.dtype(float)}
    assert table["first"].fillna(0).tolist() == [1889, 0, 0, 1503]
    assert table["last"].fillna(0).tolist() == [1889, 0, 0, 1506]
    assert years.spans([]).columns.tolist() == ["first", "last"]
