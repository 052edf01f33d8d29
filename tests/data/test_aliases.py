"""The table of painters' other names: that of the package, and one of the user's own."""

import csv
from pathlib import Path

import pytest

from artclf.base.errors import InputError
from artclf.data import aliases
from artclf.data.names import artist_keys

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = [
    ("Pieter Bruegel the Elder", "Pieter Brueghel the Younger", "Jan Brueghel the Elder"),
    ("Jan Brueghel the Elder", "Jan Brueghel the Younger"),
    ("Orazio Gentileschi", "Artemisia Gentileschi"),
    ("Agostino Carracci", "Annibale Carracci", "Ludovico Carracci"),
    ("Hans Holbein the Elder", "Hans Holbein the Younger", "Ambrosius Holbein"),
    ("Gentile Bellini", "Giovanni Bellini", "Jacopo Bellini"),
    ("Giovanni Battista Tiepolo", "Giovanni Domenico Tiepolo"),
    ("Filippo Lippi", "Filippino Lippi"),
    ("Palma Vecchio", "Palma il Giovane"),
    ("Utagawa Toyokuni", "Utagawa Toyokuni II", "Utagawa Kunisada", "Utagawa Kuniyoshi"),
    ("Theodore Rousseau", "Henri Rousseau"),
    ("William Turner", "Charles Turner"),
    ("Marcel Duchamp", "Jacques Villon"),
]


def rows():
    with (ROOT / "artclf/data/artists.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_no_alias_stands_twice_and_no_painter_is_an_alias():
    header, *lines = rows()
    assert header == ["alias", "artist"] and len(lines) > 600
    names = [alias for alias, _ in lines]
    artists = {artist for _, artist in lines}
    assert len(set(names)) == len(names) and not artists & set(names)
    found = artist_keys([*names, *artists])
    assert [line for line in lines if found[line[0]] != found[line[1]]] == []
    assert len({found[artist] for artist in artists}) == len(artists)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family[0])
def test_people_of_one_family_stay_apart(family):
    with_all_others = artist_keys([*family, *aliases.known_aliases()])
    assert len({with_all_others[name] for name in family}) == len(family)
    assert len(set(artist_keys(family).values())) == len(family)


def test_a_users_own_table_is_read_from_the_data_set(tmp_path):
    assert aliases.aliases_of(tmp_path) == {}
    (tmp_path / "artists.csv").write_text("\ufeffartist,alias,note\nBanksy, R. G. ,?\n", "utf-8")
    assert aliases.aliases_of(tmp_path) == {"R. G.": "Banksy"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,artist\na,b\n", "needs the columns alias and artist: it has name, artist"),
        ("alias,artist\na,\n", "without alias or artist: 'a'"),
        ("", "needs the columns"),
        ("alias,artist\nBr\xfccke,x\n".encode("latin-1"), "is not CSV in UTF-8"),
    ],
)
def test_a_table_that_is_none_is_named(tmp_path, text, message):
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "artists.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"artists.csv .*{message}"):
        aliases.aliases_of(tmp_path)
