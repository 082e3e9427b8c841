"""The command as its users meet it: good input, bad input, exit codes, and never a traceback."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vigie.command import main

SKAB = """
name = "loop"
description = "A water loop"
window_s = 10.0
lateness_s = 0.0
idle_after_s = 60.0
silent_after_s = 600.0
time_zone = "Europe/Moscow"

[table]
time = "datetime"
separator = ";"
ignore = ["anomaly"]

[signals.current]
description = "Current"
unit = "A"
range = [-10.0, 100.0]
period_s = 1.0
columns = ["Current"]

[signals.pressure]
description = "Pressure"
unit = "bar"
range = [-10.0, 10.0]
period_s = 1.0
columns = ["Pressure"]

[detection]
features = ["current.mean", "pressure.mean"]
warm_up = 10
"""


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    path = tmp_path / "loop.toml"
    path.write_text(SKAB)
    return path


def rows_of(query: str) -> list[tuple[object, ...]]:
    """Read with DuckDB, as somebody without this project would."""
    return duckdb.connect().execute(query).fetchall()


def table(rows: int = 100) -> list[str]:
    lines = ["datetime;Current;Pressure;anomaly"]
    lines += [f"2020-03-09 10:{n // 60:02d}:{n % 60:02d};{1 + n % 7 / 10};{n % 5 / 10};0.0" for n in range(rows)]
    return lines


def score(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["score", *arguments])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    return status, printed.out, printed.err


def test_score_writes_a_row_a_window_and_says_the_counts(
    tmp_path: Path, loop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "valve.csv").write_text("\n".join(table()) + "\n")
    out = tmp_path / "scores.parquet"
    status, said, _ = score(capsys, str(tmp_path / "valve.csv"), "--class", str(loop), "--out", str(out))
    assert status == 0
    assert said.startswith("200 readings in: 200 scored, 0 rejected\n10 windows, 0 pages")
    rows = pq.read_table(out)
    assert rows.column_names == [
        "asset", "window_start", "window_end", "samples", "state", "anomaly_score", "health", "p_fail_2h",
        "p_fail_24h", "p_fail_7d", "rul_p10_s", "rul_p50_s", "rul_p90_s", "page", "failure_mode", "top_signals",
    ]  # fmt: skip
    assert set(rows["asset"].to_pylist()) == {"valve"}
    assert sum(rows["samples"].to_pylist()) == 200
    first = rows["window_start"].to_pylist()[0]
    assert first.isoformat() == "2020-03-09T07:00:00+00:00", "Moscow is three hours ahead"
    assert rows["health"].null_count == len(rows), "without failure modes health cannot be known"
    # DuckDB reads it without this project.
    assert rows_of(f"select count(*) from '{out}' where page") == [(0,)]


def test_two_runs_give_the_same_bytes(tmp_path: Path, loop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "valve.csv").write_text("\n".join(table(900)) + "\n")
    for name in ("a.parquet", "b.parquet", "a.csv", "b.csv"):
        assert score(capsys, str(tmp_path / "valve.csv"), "--class", str(loop), "--out", str(tmp_path / name))[0] == 0
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize(
    ("change", "reason", "count"),
    [
        (lambda lines: [lines[0], *(line.replace(";0.2;", ";open;") for line in lines[1:])], "bad_value", 20),
        (lambda lines: [lines[0] + ";Colour", *(line + ";7" for line in lines[1:])], "unknown_signal", 100),
        (lambda lines: [lines[0], lines[1].replace("2020-03-09 10:00:00", "soon"), *lines[2:]], "bad_time", 2),
        (lambda lines: [*lines[:50], "only;two", *lines[50:]], "malformed", 1),
        (lambda lines: [*lines, lines[-1]], "duplicate", 2),
        (lambda lines: [lines[0], *(line.replace(";0.2;", ";99.0;") for line in lines[1:])], "out_of_range", 20),
    ],
)
def test_bad_rows_are_counted_and_the_good_ones_scored(
    tmp_path: Path, loop: Path, capsys: pytest.CaptureFixture[str], change: object, reason: str, count: int
) -> None:
    lines = change(table())  # type: ignore[operator]
    (tmp_path / "valve.csv").write_text("\n".join(lines) + "\n")
    out, letters = tmp_path / "scores.parquet", tmp_path / "rejected"
    arguments = (str(tmp_path / "valve.csv"), "--class", str(loop), "--out", str(out), "--dead-letters", str(letters))
    status, said, _ = score(capsys, *arguments)
    assert status == 0
    assert f"{reason} {count}" in said, said
    received, scored, rejected = (int(said.replace(",", "").split()[n]) for n in (0, 3, 5))
    assert received == scored + rejected
    assert sum(pq.read_table(out)["samples"].to_pylist()) == scored
    kept = rows_of(f"select sum(readings) from '{letters}/**/*.parquet' where reason = '{reason}'")
    assert kept == [(count,)]


def test_naive_times_without_a_zone_are_rejected(
    tmp_path: Path, loop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop.write_text(SKAB.replace('time_zone = "Europe/Moscow"', ""))
    lines = table()
    lines[1] = lines[1].replace("2020-03-09 10:00:00", "2020-03-09T10:00:00Z")
    (tmp_path / "valve.csv").write_text("\n".join(lines) + "\n")
    status, said, _ = score(
        capsys, str(tmp_path / "valve.csv"), "--class", str(loop), "--out", str(tmp_path / "s.parquet")
    )
    assert status == 0
    assert "2 scored, 198 rejected (naive_time 198)" in said


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, "none.csv"),
        ("empty.csv", b"", "empty"),
        ("random.csv", bytes(range(256)) * 40, "random.csv"),
        ("random.parquet", bytes(range(256)) * 40, "random.parquet"),
        ("random.arrow", bytes(range(256)) * 40, "random.arrow"),
        ("strange.csv", b"datetime;Colour\n2020-03-09 10:00:00;7\n", "none of the columns"),
        ("twice.csv", b"datetime;Current;Current\n2020-03-09 10:00:00;7;7\n", "Current"),
        ("timeless.csv", b"Current;Pressure\n7;7\n", "datetime"),
        ("what.xlsx", b"PK\x03\x04", "what.xlsx"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, loop: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "scores.parquet"
    status, said, error = score(capsys, str(tmp_path / name), "--class", str(loop), "--out", str(out))
    assert status in (1, 2)
    assert said == ""
    assert words in error
    assert error.count("\n") == 1, error
    assert not out.exists()


def test_a_truncated_parquet_is_one_sentence(tmp_path: Path, loop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.table({"datetime": ["2020-03-09 10:00:00"] * 1000, "Current": [1.0] * 1000}), whole)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-40])
    status, _, error = score(capsys, str(cut), "--class", str(loop), "--out", str(tmp_path / "s.parquet"))
    assert status == 1
    assert error.count("\n") == 1


def test_a_wrong_class_file_or_output_is_one_sentence(
    tmp_path: Path, loop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "valve.csv").write_text("\n".join(table()) + "\n")
    data = str(tmp_path / "valve.csv")
    loop.write_text(SKAB + "\ncolour = 1\n")
    for arguments, words in (
        ((data, "--class", str(loop)), "colour"),
        ((data, "--class", "elevator"), "boiler, lift"),
        ((data, "--class", "lift", "--out", str(tmp_path / "scores.xlsx")), ".parquet or .csv"),
        ((data, "--class", "lift", "--out", str(tmp_path / "no/scores.csv")), "there is no folder"),
        (
            (data, "--class", "lift", "--out", "/proc/x.parquet"),
            "--out /proc/x.parquet: nothing can be written in /proc (",
        ),
        ((data, "--class", "lift", "--dead-letters", "/proc/x"), "--dead-letters /proc/x: nothing can be written in"),
    ):
        status, _, error = score(capsys, *arguments)
        assert status == 1
        assert words in error
        assert error.count("\n") == 1


def test_a_class_of_other_machines_is_doubted(tmp_path: Path, loop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "valve.jsonl", str(tmp_path / "s.parquet")
    line = '{"asset":"v","signal":"%s","time":"2026-01-05T00:00:%02dZ","value":1.0}\n'
    data.write_text("".join(line % ("steam", n) for n in range(30)) + line % ("current", 30))
    status, said, error = score(capsys, str(data), "--class", str(loop), "--out", out)
    assert status == 0 and "unknown_signal 30" in said
    assert error == (
        f"vigie: 97% of the readings are of signals that the class loop does not have: is --class {loop} right?\n"
    )
    data.write_text("".join(line % (("steam", "current")[n % 2], n) for n in range(30)))
    assert score(capsys, str(data), "--class", str(loop), "--out", out)[2] == ""


@pytest.mark.parametrize("spelling", ["valve.csv", "./sub/../valve.csv", "link.csv", "hard.csv"])
def test_the_input_is_never_overwritten(
    tmp_path: Path, loop: Path, capsys: pytest.CaptureFixture[str], spelling: str
) -> None:
    data = tmp_path / "valve.csv"
    data.write_text("\n".join(table()) + "\n")
    before = data.read_bytes()
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.csv").symlink_to(data)
    (tmp_path / "hard.csv").hardlink_to(data)
    status, _, error = score(capsys, str(data), "--class", str(loop), "--out", f"{tmp_path}/{spelling}")
    assert status == 1 and data.read_bytes() == before
    assert "this is the input itself" in error and error.count("\n") == 1


@pytest.mark.parametrize("command", ["demo", "run", "score", "simulate", "check"])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"example: vigie {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["backtest"], ["score"], ["demo", "--speed", "fast"], ["demo", "--speed", "-1"]]
)
def test_bad_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_simulated_files_are_scored_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "fleet"
    arguments = ["simulate", str(out), "--lifts", "2", "--boilers", "0", "--days", "0.2", "--seed", "5"]
    assert main([*arguments, "--format", "jsonl", "--faults", "none"]) == 0
    said = capsys.readouterr().out
    readings = int(said.replace(",", "").split()[0])
    assert (out / "truth.csv").is_file()
    [telemetry] = (out / "telemetry").iterdir()
    status, said, _ = score(capsys, str(telemetry), "--class", "lift", "--out", str(tmp_path / "s.parquet"))
    assert status == 0
    assert said.startswith(f"{readings:,} readings in: {readings:,} scored, 0 rejected")
    assert main(arguments) == 1, "a folder that is not empty is left alone"
    assert "not empty" in capsys.readouterr().err


SITE = """
name = "Les Lilas"
assets = "fleet/assets.csv"

[[inputs]]
kind = "files"
name = "gateway"
paths = ["fleet/telemetry/*"]

[outputs]
address = "127.0.0.1:0"
archive = "archive"
dead_letters = "rejected"
"""


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "fleet"
    assert main(["simulate", str(out), "--lifts", "2", "--boilers", "1", "--days", "0.1", "--faults", "none"]) == 0
    capsys.readouterr()
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    return path


def test_check_finds_nothing_wrong_in_a_good_site(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(site)]) == 0
    assert "3 assets, 1 input, 1 file: nothing is wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("assets.csv", "none.csv"), "there is no such asset file"),
        (("fleet/telemetry/*", "fleet/nothing/*"), "no file matches"),
        (("127.0.0.1:0", "somewhere"), "an address is host:port"),
        (("127.0.0.1:0", "some..where:1"), "'some..where' cannot be the name of a host"),
        (("[outputs]", "[output]"), "there is no key `output`: did you mean `outputs`?"),
        (
            ('kind = "files"', 'kind = "carrier pigeon"'),
            "$.inputs[0].kind: 'carrier pigeon' is none of files, kafka, mqtt, simulator",
        ),
        (
            ('name = "gateway"', 'name = "gateway"\nclass = "chiller"'),
            "no class is called 'chiller': they are boiler, lift",
        ),
        (('name = "Les Lilas"', ""), "the key `name` is missing"),
        (
            ('kind = "files"\n', ""),
            "$.inputs[0]: the key `kind` is missing: it is one of files, kafka, mqtt, simulator",
        ),
        (("[[inputs]]", "[inputs]"), "$.inputs: write [[inputs]], in double brackets: there may be several"),
        (('["fleet/telemetry/*"]', '"fleet/telemetry/*"'), '$.inputs[0].paths: expected a list: write ["fleet/'),
        (('archive = "archive"', 'archive = "/proc/arch"'), "$.outputs.archive: nothing can be written in /proc ("),
        (('"rejected"', '"/proc/self/rejected"'), "$.outputs.dead_letters: nothing can be written in /proc/self ("),
        (('"rejected"', '"site.toml/rejected"'), "site.toml is not a folder"),
        (('"rejected"', '"./fleet/../archive"'), "$.outputs.dead_letters: ./fleet/../archive is the folder of the arc"),
        (('assets = "fleet/assets.csv"', 'assets = "fleet/assets.csv"\nclasses = ["c.toml"]'), "no such class file"),
    ],
)
def test_check_says_what_is_wrong(
    site: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], words: str
) -> None:
    text = SITE.replace(*change)
    assert text != SITE
    site.write_text(text)
    before = sorted(site.parent.rglob("*"))
    assert main(["check", str(site)]) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert sorted(site.parent.rglob("*")) == before, "a check leaves nothing behind"


@pytest.mark.parametrize(
    ("register", "words"),
    [
        ("id;class\nlift-0001;lift\n", "assets.csv: line 1: the columns are separated by ';'"),
        ("id,class\n", "assets.csv: it names no asset"),
        (
            "id,class\nlift-0001,ascenseur\nlift-0002,ascenseur\n",
            "assets.csv: the asset 'lift-0001' is of class 'ascenseur', which no class file has, and so are 1 more: "
            "the classes are boiler, lift",
        ),
    ],
)
def test_a_wrong_register_is_one_sentence(
    site: Path, capsys: pytest.CaptureFixture[str], register: str, words: str
) -> None:
    (site.parent / "fleet/assets.csv").write_text(register)
    for command in ("check", "run"):
        assert main([command, str(site)]) == 1
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_an_address_that_no_name_server_knows_is_said(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.write_text(SITE.replace("127.0.0.1:0", "somewhere.invalid:9300"))
    assert main(["run", str(site)]) == 1
    assert "vigie: cannot listen on somewhere.invalid:9300: no host is called so (" in capsys.readouterr().err


def test_what_is_no_site_file_is_said(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary = site.with_name("binary.toml")
    binary.write_bytes(b"PAR1\xff\xfe\x00")
    for path, words in ((site.parent, "this is a folder"), (binary, "it is not text in UTF-8")):
        for command in ("check", "run"):
            assert main([command, str(path)]) == 1
            error = capsys.readouterr().err
            assert words in error and error.count("\n") == 1


def test_a_wide_table_without_a_class_says_what_to_write(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site.parent / "wide.csv").write_text("time,motor_current\n2026-01-05T00:00:00Z,1.0\n")
    site.write_text(SITE.replace("fleet/telemetry/*", "*.csv"))
    assert main(["check", str(site)]) == 1
    words = (
        'wide.csv: a wide table needs the class of its assets: write class = "lift", or another, under its [[inputs]]'
    )
    assert words in capsys.readouterr().err


def test_a_run_over_files_of_which_none_can_be_read_fails(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = site.parent / "fleet/telemetry"
    (telemetry / "torn.parquet").write_bytes(b"PAR1" + bytes(20))
    assert main(["run", str(site)]) == 0, "one among others is left out"
    assert "torn.parquet: this is not a whole Parquet file" in capsys.readouterr().err
    for file in telemetry.iterdir():
        file.write_bytes(b"PAR1" + bytes(20))
    assert main(["run", str(site)]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "no file of the site can be read: " in printed.err


def test_run_works_through_files_and_archives_them(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(site)]) == 0
    said = capsys.readouterr().out
    assert "listening on http://127.0.0.1:" in said
    assert " 0 rejected" in said
    features = rows_of(f"select count(distinct asset) from '{site.parent}/archive/**/*.parquet'")
    assert features == [(3,)]


def test_a_file_that_is_damaged_further_on_ends_there_and_fails_no_run(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = b"".join(
        b'{"asset":"lift-0001","signal":"motor_current","time":%d,"value":1.0}\n' % (1767571200 + n)
        for n in range(1000)
    )
    (site.parent / "fleet/telemetry/cut.jsonl.gz").write_bytes(gzip.compress(whole, mtime=0)[:-8])
    assert main(["run", str(site)]) == 0
    printed = capsys.readouterr()
    assert "cut.jsonl.gz: the file is damaged (" in printed.err and "every input has ended" in printed.out


def test_what_is_rejected_is_kept_as_the_operations_guide_says(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = site.parent / "fleet/telemetry"
    for file in telemetry.iterdir():
        file.unlink()
    late = b'{"asset":"lift-0001","signal":"motor_current","time":"2026-01-05T00:00:00Z","value":-1e6}'
    stranger = b'{"asset":"lift-9999","signal":"motor_current","time":"2026-01-05T00:00:00Z","value":1.0}'
    broken = b'{"asset":"lift-0001","signal"'
    (telemetry / "some.jsonl").write_bytes(b"\n".join((late, stranger, broken)) + b"\n")
    assert main(["run", str(site)]) == 0
    capsys.readouterr()
    kept: dict[Any, Any] = {
        reason: raw for reason, raw in rows_of(f"select reason, raw from '{site.parent}/rejected/**/*.parquet'")
    }
    assert kept["malformed"] == broken
    assert json.loads(kept["out_of_range"]) == {
        "asset": "lift-0001", "signal": "motor_current", "start_us": 1767571200000000, "period_us": 0,
        "values": [-1e6],
    }  # fmt: skip
    [row] = pa.ipc.open_stream(kept["unknown_asset"]).read_all().to_pylist()
    assert (row["asset"], row["values"]) == ("lift-9999", [1.0])


def test_a_future_time_in_a_live_run_is_rejected(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = site.parent / "fleet/telemetry"
    for file in telemetry.iterdir():
        file.unlink()
    (telemetry / "ahead.jsonl").write_text(
        '{"asset":"lift-0001","signal":"motor_current","time":"2026-01-05T00:00:00Z","value":1.0}\n'
        '{"asset":"lift-0001","signal":"motor_current","time":"2199-01-05T00:00:00Z","value":1.0}\n'
        '{"asset":"lift-9999","signal":"motor_current","time":"2026-01-05T00:00:00Z","value":1.0}\n'
    )
    assert main(["run", str(site)]) == 0
    said = capsys.readouterr().out
    assert "3 readings in: 1 scored, 2 rejected" in said
    assert "future 1" in said
    assert "unknown_asset 1" in said


def test_the_demo_serves_its_page_and_stops_on_a_signal(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "vigie", "demo", "--lifts", "2", "--boilers", "1", "--address", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        url = ""
        while not url:
            line = process.stdout.readline()
            assert line, "the demo ended before it listened"
            if line.startswith("listening on "):
                url = line.split()[2]
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"Vigie" in answer.read()
        with urllib.request.urlopen(url + "healthz", timeout=10) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, rest
    assert "readings in" in rest
    assert "Traceback" not in rest
