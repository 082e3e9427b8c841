"""The register of assets: who they are, where they stand, whom they serve and who repairs them."""

from __future__ import annotations

import csv
import zlib
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from features.wording import nearest, parser_words

__all__ = ["Asset", "AssetFileError", "Register", "load_assets", "shard_of"]


class AssetFileError(ValueError):
    """An asset file that cannot be used; the message names the file and the line or entry."""


class Asset(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"equipment": "class"}):
    """One asset of the register.

    Attributes
    ----------
    id
        Its name in telemetry, unique.
    equipment
        Its equipment class; `class` in files.
    site, building, address
        Where it stands.
    households
        Number of households that it serves.
    provider, contract
        Who maintains it, under which contract.
    time_zone
        IANA zone for hours of the week and texts.
    commissioned
        Date of commissioning, ISO 8601.
    make
        Manufacturer and model; assets of one class and make are peers.
    simulated
        True for an asset that does not exist; it is labelled so wherever it is shown.
    """

    id: Annotated[str, Meta(min_length=1, max_length=200)]
    equipment: str
    site: str = ""
    building: str = ""
    address: str = ""
    households: Annotated[int, Meta(ge=0)] = 0
    provider: str = ""
    contract: str = ""
    time_zone: str = "UTC"
    commissioned: str = ""
    make: str = ""
    simulated: bool = False


Register = dict[str, Asset]
"""Assets by id."""


def shard_of(asset: str, shards: int) -> int:
    """Return the shard that an asset belongs to, the same on every machine, in every process and for ever.

    Examples
    --------
    >>> shard_of("lift-0001", 16)
    11
    """
    return zlib.crc32(asset.encode()) % shards


def load_assets(path: str | Path) -> Register:
    """Load a register from a `.csv` file with a header, or a `.toml` file with one `[[assets]]` table an asset.

    Raises
    ------
    AssetFileError
        If the file is missing, a column is not known, or one entry is wrong: the whole file is refused, and the message
        names the line. An unknown column is refused because it may be a known one that is spelt wrong.
    """
    path = Path(path)
    try:
        rows = _csv_rows(path) if path.suffix == ".csv" else _toml_rows(path)
    except FileNotFoundError:
        raise AssetFileError(f"{path}: there is no such asset file") from None
    except UnicodeDecodeError:
        raise AssetFileError(f"{path}: this is not text in UTF-8: save it as CSV UTF-8") from None
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise AssetFileError(f"{path}: the asset file cannot be read ({reason})") from None
    register: Register = {}
    zones: set[str] = set()
    for place, row in rows:
        try:
            asset = msgspec.convert(row, Asset, strict=False)
        except msgspec.ValidationError as error:
            raise AssetFileError(f"{path}: {place}: {parser_words(error, Asset, row)}") from None
        if asset.id in register:
            raise AssetFileError(f"{path}: {place}: the asset {asset.id!r} stands twice")
        if asset.time_zone not in zones:
            try:
                ZoneInfo(asset.time_zone)
            except (KeyError, ValueError, OSError):
                raise AssetFileError(f"{path}: {place}: no IANA time zone is called {asset.time_zone!r}") from None
            zones.add(asset.time_zone)
        register[asset.id] = asset
    return register


def _csv_rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        problem = _header_problem(list(reader.fieldnames or ()))
        if problem is not None:
            raise AssetFileError(f"{path}: line 1: {problem}")
        rows = []
        for row in reader:
            place = f"line {reader.line_num}"
            if None in row or None in row.values():
                raise AssetFileError(f"{path}: {place}: this line has not as many fields as the header")
            rows.append((place, {key: value for key, value in row.items() if value != ""}))
    return rows


def _header_problem(columns: list[str]) -> str | None:
    """Return what is wrong in the header, None where nothing is.

    Examples
    --------
    >>> _header_problem(["id", "class", "Provider"])
    "no column is called 'Provider': did you mean `provider`?"
    """
    known = [field.encode_name for field in msgspec.structs.fields(Asset)]
    if not columns:
        return "the header is missing"
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
        mark = next(mark for mark in ";\t|" if mark in columns[0])
        return f"the columns are separated by {mark!r}: save the file with commas"
    unknown = [column for column in columns if column not in known]
    if len(unknown) == 1:
        return f"no column is called {unknown[0]!r}: {nearest(unknown[0], known, 'columns')}"
    if unknown:
        return f"no columns are called {', '.join(map(repr, unknown))}: the columns are {', '.join(known)}"
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        return f"two columns are called {twice[0]!r}"
    missing = [column for column in ("id", "class") if column not in columns]
    return f"the column `{missing[0]}` is missing" if missing else None


def _toml_rows(path: Path) -> list[tuple[str, dict[str, object]]]:
    try:
        document = msgspec.toml.decode(path.read_text(encoding="utf-8"), type=dict[str, list[dict[str, object]]])
    except msgspec.ValidationError:
        raise AssetFileError(f"{path}: expected [[assets]] tables and nothing else") from None
    except msgspec.DecodeError as error:
        raise AssetFileError(f"{path}: this is not TOML: {error}") from None
    if set(document) != {"assets"}:
        raise AssetFileError(f"{path}: expected [[assets]] tables and nothing else")
    return [(f"$.assets[{number}]", row) for number, row in enumerate(document["assets"])]
