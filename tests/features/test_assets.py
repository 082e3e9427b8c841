"""The register: what loads, how fast shards are found, what is refused whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from features.assets import AssetFileError, load_assets, shard_of

HEADER = "id,class,site,building,address,households,provider,contract,time_zone,commissioned,make,simulated\n"


def test_csv_and_toml_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEADER + "l1,lift,S,B,1 rue X,24,P,C,Europe/Paris,2001-02-03,Otis,false\n")
    (tmp_path / "a.toml").write_text(
        '[[assets]]\nid = "l1"\nclass = "lift"\nsite = "S"\nbuilding = "B"\naddress = "1 rue X"\nhouseholds = 24\n'
        'provider = "P"\ncontract = "C"\ntime_zone = "Europe/Paris"\ncommissioned = "2001-02-03"\nmake = "Otis"\n'
    )
    assert load_assets(tmp_path / "a.csv") == load_assets(tmp_path / "a.toml")


def test_empty_cells_are_defaults(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEADER + "l1,lift,,,,,,,,,,\n")
    asset = load_assets(tmp_path / "a.csv")["l1"]
    assert (asset.households, asset.time_zone, asset.simulated) == (0, "UTC", False)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("l1,lift,,,,many,,,,,,\n", r"line 2: \$.households: expected a whole number, got 'many'"),
        (",lift,,,,1,,,,,,\n", "line 2: the key `id` is missing"),
        ("l1,lift,,,,-1,,,,,,\n", r"line 2: .*households: expected a whole number of at least 0, got"),
        ("l1,lift,,,,1,,,Mars/Olympus,,,\n", r"line 2: no IANA time zone is called 'Mars/Olympus'"),
        ("l1,lift,,,,1,,,,,,\nl1,lift,,,,1,,,,,,\n", r"line 3: the asset 'l1' stands twice"),
        ("l1,lift\n", r"line 2: this line has not as many fields as the header"),
    ],
)
def test_a_bad_file_is_refused_whole_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEADER + line)
    with pytest.raises(AssetFileError, match=words):
        load_assets(path)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("id,class,providr", r"line 1: no column is called 'providr': did you mean `provider`\?"),
        (
            "id,class,Code patrimoine",
            "line 1: no column is called 'Code patrimoine': the columns are id, class, site, ",
        ),
        ("Adresse,id,class,Ville", "line 1: no columns are called 'Adresse', 'Ville': the columns are id, class, "),
        ("id;class;site", "line 1: the columns are separated by ';': save the file with commas"),
        ("id,site", "line 1: the column `class` is missing"),
        ("id,class,id", "line 1: two columns are called 'id'"),
        ("", "line 1: the header is missing"),
    ],
)
def test_the_header_of_an_export_is_told_with_the_columns_there_are(tmp_path: Path, header: str, words: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\nl1,lift,x\n" if header else "")
    with pytest.raises(AssetFileError, match=words):
        load_assets(path)


def test_an_export_in_another_alphabet_says_how_to_save_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("id,class,provider\nl1,lift,Société\n".encode("latin-1"))
    with pytest.raises(AssetFileError, match="this is not text in UTF-8: save it as CSV UTF-8"):
        load_assets(path)


def test_unknown_keys_and_missing_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('[[assets]]\nid = "l1"\nclass = "lift"\ncolour = "red"\n')
    with pytest.raises(AssetFileError, match=r"\$.assets\[0\]: .*colour"):
        load_assets(path)
    with pytest.raises(AssetFileError, match="there is no such asset file"):
        load_assets(tmp_path / "none.csv")
    path.write_text("[assets")
    with pytest.raises(AssetFileError):
        load_assets(path)


def test_a_shard_is_the_same_for_ever_and_shards_are_even() -> None:
    assert [shard_of(f"lift-{n:04d}", 16) for n in range(6)] == [13, 11, 1, 7, 4, 2]
    counts = Counter(shard_of(f"lift-{n:05d}", 16) for n in range(16_000))
    assert set(counts) == set(range(16))
    assert max(counts.values()) < 1200
