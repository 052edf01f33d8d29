"""Names of painters: spellings of one painter share a key, different people do not."""

import csv
import random
import re
import unicodedata
from collections import defaultdict

import pytest

from artclf.data.names import artist_keys


def keys(names: str) -> list[str]:
    """The keys of names that are separated by bars."""
    names = names.split(" | ")
    found = artist_keys(names)
    return [found[name] for name in names]


@pytest.mark.parametrize(
    "names",
    [
        "Vincent van Gogh | van Gogh, Vincent | VAN GOGH | Gogh, Vincent Willem van | V. van Gogh | vincent-van-gogh",
        "Vincent van Gogh | Vincent van Gogh (1853-1890) | Vincent van Gogh (Dutch, 1853–1890) | van Gogh, 1853–1890",
        "Gogh, Vincent van, Dutch, 1853-1890 | Vincent Van Gogh | vincent_van_gogh | Gogh",
        "Pierre-Auguste Renoir | pierre_auguste_renoir | Auguste Renoir | Renoir, Pierre Auguste | P.-A. Renoir | Renoir",  # noqa: E501
        "Pablo Picasso | P. Picasso | Picasso, Pablo | Pablo Ruiz Picasso | PICASSO",
        "Édouard Manet | Edouard Manet | manet",
        "Henri de Toulouse-Lautrec | Toulouse-Lautrec | Toulouse-Lautrec, Henri de | Henri Toulouse Lautrec",
        "El Greco | Greco, El | El Greco (Doménikos Theotokópoulos; Greek, active in Spain, 1541–1614)",
        "Piero della Francesca | Francesca, Piero della | piero-della-francesca",
        "Wilhelm von Kaulbach | Kaulbach, Wilhelm von",
        "Pieter Bruegel the Elder | Bruegel the Elder, Pieter | Bruegel, Pieter, the Elder | pieter-bruegel-the-elder | "  # noqa: E501
        "Pieter Bruegel (I) | Pieter Bruegel d. Ä. | Pieter Bruegel I",
        "Hans Holbein the Younger | Hans Holbein (the Younger) | Hans Holbein d. J. | Hans Holbein II | Holbein, Hans, II",  # noqa: E501
        "Hans Holbein the Younger | Holbein",
        "Rembrandt | Rembrandt van Rijn",
        "Leonardo da Vinci | Leonardo | Vinci, Leonardo da",
        "Sir Lawrence Alma-Tadema | Lawrence Alma Tadema | Alma-Tadema",
        "J.M.W. Turner | J. M. W. Turner | Joseph Mallord William Turner | William Turner",
        "Allan D'Arcangelo | Allan Darcangelo",
        "Julian Fałat | Julian Falat",
        "Ilya Repin | Repin, I.",
        "Workshop of Peter Paul Rubens | Rubens (workshop) | Rubens, Peter Paul, workshop of",
        "Attributed to Rembrandt | Rembrandt (attributed to)",
        "Attributed to Rembrandt | Rembrandt Harmenszoon van Rijn (attributed to)",
        "Rembrandt | Rembrandt Harmenszoon van Rijn | Rijn, Rembrandt Harmensz van | Rembrandt van Rijn",
        "Michelangelo | Michelangelo Buonarroti | Buonarroti, Michelangelo | M. Buonarroti",
        "Raphael | Raffaello Sanzio | Raffaello Sanzio da Urbino | Sanzio, Raffaello",
        "Titian | Tiziano Vecellio | Tiziano | Ticiano Vecellio | Titian (Tiziano Vecellio; Italian, c. 1488-1576)",
        "Bruegel | Brueghel | Pieter Bruegel | Pieter Brueghel the Elder | Breughel | pieter-bruegel-the-elder",
        "Pieter Brueghel the Younger | Pieter Bruegel the Younger | Pieter Breughel II",
        "Jan Brueghel | Jan Bruegel the Elder | Jan Breughel the Elder",
        "Caravaggio | Michelangelo Merisi | Michelangelo Merisi da Caravaggio | Merisi, Michelangelo",
        "El Greco | Doménikos Theotokópoulos | Dominikos Theotokopoulos",
        "Wassily Kandinsky | Vasily Kandinsky | Kandinsky, Wassily",
        "Kazimir Malevich | Kasimir Malevich",
        "Alexei Savrasov | Aleksey Savrasov",
        "Jan Vermeer | Johannes Vermeer | Vermeer",
        "Salvador Dali | Salvidor Dali | Dalí, Salvador",
    ],
)
def test_spellings_of_one_painter_share_a_key(names):
    found = keys(names)
    assert len(set(found)) == 1 and found[0]


@pytest.mark.parametrize(
    "names",
    [
        "Pieter Bruegel the Elder | Pieter Bruegel the Younger | Jan Bruegel the Elder | Jan Brueghel the Younger",
        "Orazio Gentileschi | Artemisia Lomi Gentileschi | Gentileschi",
        "Annibale Carracci | Agostino Carracci | Ludovico Carracci | Carracci",
        "Caravaggio | Polidoro da Caravaggio",
        "Jacopo Tintoretto | Domenico Tintoretto",
        "Giovanni Battista Tiepolo | Giandomenico Tiepolo",
        "Lucas Cranach | Lucas Cranach the Younger",
        "Titian | Workshop of Tiziano Vecellio | After Titian",
        "Camille Corot | Corneille | Corneille de Lyon",
        "Hans Holbein the Elder | Hans Holbein the Younger | Holbein",
        "Lucas Cranach I | Lucas Cranach II",
        "Lucas Cranach the Elder | Lucas Cranach the Younger | Cranach",
        "Jan van Eyck | Hubert van Eyck | van Eyck",
        "Claude Monet | Edouard Manet",
        "Orazio Gentileschi | Artemisia Gentileschi | Gentileschi",
        "Utagawa Toyokuni | Utagawa Toyokuni Ii | Utagawa Toyokuni III",
        "Peter Paul Rubens | Workshop of Peter Paul Rubens | After Rubens | Circle of Peter Paul Rubens | "
        "Attributed to Peter Paul Rubens | Follower of Rubens | Rubens, Peter Paul, style of",
        "Workshop of Velázquez | Workshop of Rubens",
        "Rembrandt | Rembrandt Peale",
        "Michelangelo | Michelangelo Pistoletto",
        "Raphael | Raphael Soyer",
        "Bartolomeo di Giovanni | Fra Bartolomeo",
        "Rembrandt | Govert Flinck / Rembrandt",
        "Peter Paul Rubens | Jan Brueghel and Peter Paul Rubens",
        "Jacob Isaakszoon van Ruisdael | Jacob Salomonsz van Ruisdael",
        "Master of 1518 | Master of 1445 | Master of the Lille Adoration | Master of Pulkau",
        "Palma il Vecchio | Palma il Giovane",
        "J. Brueghel | Jan Brueghel | Jacob Brueghel",
        "张大千 | 齐白石",
    ],
)
def test_different_people_have_different_keys(names):
    found = keys(names)
    assert len(set(found)) == len(found) and all(found)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "?",
        "unknown",
        "Unknown artist",
        "Anonymous",
        "anonymous (Italian, 15th century)",
        "Unidentified",
        "Italian",
        "Flemish; possibly Antwerp",
        "Italian or Spanish",
        "North Netherlandish",
        "Italian School",
        "Utrecht school",
        "(1853-1890)",
        "nan",
        "German painter",
    ],
)
def test_what_names_nobody_has_an_empty_key(name):
    assert artist_keys([name]) == {name: ""}


def test_an_alias_holds_without_the_painters_usual_name():
    assert keys("Tiziano | Tiziano Vecellio") == [keys("Titian")[0]] * 2


def test_a_table_of_ones_own_comes_before_the_one_of_the_package():
    names = ["Bruegel", "Pieter Bruegel the Elder", "J. Doe", "Banksy", "Robin Gunningham"]
    own = {"Bruegel": "Jan Brueghel the Elder", "Banksy": "R. Gunningham", "Doe, J.": "Titian"}
    found = artist_keys([*names, "Jan Brueghel", "Tiziano"], own)
    assert found["Bruegel"] == found["Jan Brueghel"] != found["Pieter Bruegel the Elder"]
    assert found["J. Doe"] == found["Tiziano"]
    apart = artist_keys(names, {"Bruegel": "Bruegel"})
    assert apart["Bruegel"] != apart["Pieter Bruegel the Elder"]
    assert artist_keys(["a", "b"], {"a": "b", "b": "a"}).keys() == {"a", "b"}  # a circle ends


def test_neither_the_order_nor_repeats_of_names_change_a_key():
    names = [
        "Jan van Eyck",
        "van Eyck",
        "Hubert van Eyck",
        "V. van Gogh",
        "Gogh, Vincent Willem van",
        "Vincent van Gogh",
        "Rembrandt",
        "Rembrandt van Rijn",
        "Camille Corot",
        "Jean-Baptiste-Camille Corot",
        "Corot",
        "Tiziano Vecellio",
        "Titian",
        "M. Buonarroti",
        "Michelangelo Buonarroti",
        "Michelangelo",
        "Bruegel",
    ]
    expected = artist_keys(names)
    for seed in range(20):
        assert artist_keys(random.Random(seed).choices(names, k=5) + names[::-1]) == expected


def test_odd_names_have_keys_too():
    odd = [
        "I",
        "II",
        ",",
        ", ,",
        "de",
        "van der",
        "x, I",
        "A,,B",
        "(((",
        ")(",
        "the Elder",
        "workshop of",
        "a" * 5000,
        " " * 50_000 + "x",
        "c. " * 20_000,
        "(" * 50_000,
        "," * 50_000,
        "\x00\n\t",
        "1853",
        "Jr.",
        "'",
        "ÄÖÜ ß",
        "И. Репин",
    ]
    assert artist_keys(odd).keys() == set(odd) and artist_keys([]) == {}


def test_the_names_of_real_data_merge_where_the_words_are_equal_and_in_judged_cases(paintings):
    with (paintings / "manifest.csv").open(encoding="utf-8", newline="") as file:
        found = artist_keys(row["artist"] for row in csv.DictReader(file))
    words = {
        name: re.sub(r"[^a-z]", "", unicodedata.normalize("NFKD", name.split(" (")[0]).lower())
        for name in found
    }
    same_words, same_key = defaultdict(set), defaultdict(set)
    for name, key in found.items():
        if not key:
            continue
        same_words[words[name]].add(key)
        same_key[key].add(words[name])
    assert [keys for keys in same_words.values() if len(keys) > 1] == []
    judged = {
        "Armand Guillaumin",
        "Camille Corot",
        "Félix Vallotton",
        "Rembrandt",
        "Henri de Toulouse-Lautrec",
        # by the table of aliases
        "Alexei Savrasov",
        "Johannes Vermeer",
        "Nikolai Bogdanov-Belsky",
        "Salvador Dali",
        "Wassily Kandinsky",
    }
    assert {key for key, several in same_key.items() if len(several) > 1} == {
        found[name] for name in judged
    }


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Þórarinn B. Þorláksson", "thorarinn b thorlaksson"),
        ("Æbelø, Jørgen", "jorgen aebelo"),
        ("Ernst Œhme", "ernst oehme"),
        ("Đura Đorđević", "dura dordevic"),
        ("Allan D’Arcangelo", "allan darcangelo"),
        ("Kunisada I", "kunisada 1"),
        ("Toyokuni II", "toyokuni 2"),
        ("Toyokuni III", "toyokuni 3"),
        ("Toyokuni IV", "toyokuni 4"),
        ("Repin, I.", "i repin"),
        ("Holbein, Hans, I", "hans holbein 1"),
        ("Govert Flinck / Rembrandt van Rijn", "govert flinck rembrandt van rijn"),
        ("School of Raphael", "school raphael"),
        ("followers of Rubens", "follower rubens"),
        ("Rubens (workshop of)", "workshop rubens"),
        ("Vincent van Gogh, c. 1853/90", "vincent gogh"),
        ("El Greco; Greek, active in Spain", "greco"),
        ("Hans Holbein the Younger", "hans holbein 2"),
        ("Palma il Vecchio", "palma 1"),
        ("Eyck, Flemish, Jan van", "jan eyck"),
        ("Georges Seurat" + " x" * 300, "georges seurat" + " x" * 143),
    ],
)
def test_keys_are_words_in_one_order(name, key):
    assert artist_keys([name]) == {name: key}


@pytest.mark.parametrize(
    ("short", "full", "same"),
    [
        ("A. Renoir", "Pierre Auguste Renoir", False),  # an initial counts in the first place
        ("P. Renoir", "Pierre Auguste Renoir", True),
        ("Auguste Renoir", "Pierre Auguste Renoir", True),
        ("Auguste Pierre Renoir", "Pierre Auguste Renoir", False),
        ("Pierre A. Renoir", "Pierre Auguste Renoir", True),
        ("Paul Renoir", "Pierre Auguste Renoir", False),
        ("Pierre Renoir the Elder", "Pierre Auguste Renoir", False),
        ("Renoir the Elder", "Pierre Auguste Renoir", False),
        ("Leonardo", "Leonardo da Vinci", True),
        ("Leonardo", "Leonardo Vinci", False),
    ],
)
def test_a_name_joins_the_fuller_one_that_it_fits(short, full, same):
    found = artist_keys([short, full])
    assert (found[short] == found[full]) is same
