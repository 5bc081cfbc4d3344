"""Names of classes and files are held against the glossary: a word has one meaning, and a class name one class."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_layout import ROOT

ROW = re.compile(r"^\| ([^|]+) \| [^|]+ \| ([^|]*)\|$", re.MULTILINE)
PLACES = {"src/hedgerow": "root", **{name: name for name in ("client", "compile", "server", "fleet", "hardware")}}
FILES = [path for folder in PLACES for path in sorted((ROOT / folder).rglob("*.py"))]


def place_of(path: Path) -> str:
    """Return where a file stands, as the glossary writes it: the folder, then its rooms."""
    folder = next(folder for folder in PLACES if path.is_relative_to(ROOT / folder))
    rooms = path.relative_to(ROOT / folder).parent.parts
    return "/".join((PLACES[folder], *rooms))


def classes_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            yield node.name


def words_of(name: str) -> set[str]:
    """Return the words in the name of a class (``TrainGraph``), a file or a folder (``train_graph``); no digits."""
    return {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def forms_of(word: str) -> set[str]:
    return {word, f"{word}s", f"{word}es", f"{word[:-1]}ies"} if word.endswith("y") else {word, f"{word}s", f"{word}es"}


def glossary() -> dict[str, tuple[str, ...]]:
    """Return word -> the places where names may carry it."""
    found = {}
    for words, places in ROW.findall((ROOT / "docs" / "glossary.md").read_text()):
        for word in re.sub(r"\([^)]*\)", "", words).split(","):
            if " " not in word.strip() and word.strip() not in {"word", "---"}:
                listed = [place.strip() for place in places.split(",")]
                found[word.strip()] = tuple(place for place in listed if place not in {"", "none"})
    return found


GLOSSARY = glossary()
FOLDERS = sorted({path.parent for path in FILES} - {ROOT / folder for folder in PLACES})
"""Those inside the folders of the first level, whose names are places themselves."""
NAMES = [
    *(
        (name, place_of(path), f"{path.relative_to(ROOT)}: {name}")
        for path in FILES
        for name in (path.stem, *classes_of(path))
        if name != "__init__"
    ),
    *((folder.name, place_of(folder / "__init__.py"), f"{folder.relative_to(ROOT)}/") for folder in FOLDERS),
]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("TrainGraph", {"train", "graph"}),
        ("train_graph", {"train", "graph"}),
        ("_HTTPServer", {"http", "server"}),
        ("MqttLink", {"mqtt", "link"}),
        ("Window2", {"window"}),
        ("window2_size", {"window", "size"}),
        ("int8_window", {"int", "window"}),
        ("Int8Window", {"int", "window"}),
        ("X86", {"x"}),
    ],
)
def test_a_name_is_its_words_and_a_digit_hides_none(name, words):
    assert words_of(name) == words


def test_folders_carry_names_too():
    assert ("rollout", "fleet/rollout", "fleet/rollout/") in NAMES
    assert ("children", "root/children", "src/hedgerow/children/") in NAMES


@pytest.mark.parametrize("word", sorted(GLOSSARY))
def test_names_carry_a_word_only_where_it_has_its_meaning(word):
    allowed = GLOSSARY[word]
    elsewhere = [
        where
        for name, place, where in NAMES
        if words_of(name) & forms_of(word) and not any(place == at or place.startswith(f"{at}/") for at in allowed)
    ]

    assert elsewhere == [], f"{word!r} stands for names in {', '.join(allowed) or 'no folder'}; choose another word"


def test_a_place_is_listed_only_where_a_name_carries_the_word():
    used = defaultdict(set)
    for word, listed in GLOSSARY.items():
        # Words of one row share its places.
        used[listed] |= {place for name, place, _where in NAMES if words_of(name) & forms_of(word)}

    assert [
        (at, listed)
        for listed, places in used.items()
        for at in listed
        if not any(place == at or place.startswith(f"{at}/") for place in places)
    ] == []


def test_no_two_public_classes_have_one_name():
    defined = defaultdict(list)
    for path in FILES:
        for name in classes_of(path):
            if not name.startswith("_"):
                defined[name].append(str(path.relative_to(ROOT)))

    assert {name: paths for name, paths in defined.items() if len(paths) > 1} == {}


def test_the_words_that_meant_several_things_are_in_the_glossary():
    assert {"baseline", "stage", "source", "reference", "trial", "feature", "window"} <= GLOSSARY.keys()
