"""Tables over sealed files: where these lie, what stands over them, and what is said of files that are none."""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from llem.errors import StoreError
from llem.projections import database, sealed
from llem.projections.derive.rows import DERIVED_TABLES
from llem.projections.sealed import (
    OF_EXPERIMENTS,
    OF_SEGMENTS,
    open_sealed,
    sealed_folder,
    sealed_in_part,
    table_folder,
)


def put(root: Path, table: str, select: str, *, host: str | None = "alpha") -> Path:
    """A file of a table, of the experiment `run`."""
    folder = table_folder(root, table, "run", host)
    folder.mkdir(parents=True)
    with database.in_memory() as connection:
        connection.execute(f"COPY ({select}) TO '{folder / 'a.parquet'}' ({sealed.COPY_OPTIONS})")
    return folder / "a.parquet"


@cache
def schema() -> Mapping[str, Mapping[str, str]]:
    """Table -> column -> type."""
    with database.in_memory() as connection:
        connection.execute(database.SCHEMA_SQL)
        tables = database.Tables(connection)
        return {table: tables.types(table) for table in ("requests", "experiments", "samples")}


def columns_of(table: str, **said: str) -> str:
    """A row of a table with all its columns, NULL but for what is said in SQL."""
    chosen = [
        f'{said.get(name, f"NULL::{kind}")} AS "{name}"'
        for name, kind in schema()[table].items()
        if name != "experiment_id"
    ]
    return f"SELECT {', '.join(chosen)}"


def test_where_files_lie(tmp_path: Path) -> None:
    """A segment's in a folder of its host, whose name may hold anything; an experiment's in one of it alone."""
    of_run = tmp_path / "table=samples" / "experiment_id=run"
    assert table_folder(tmp_path, "samples", "run", "a/b ") == of_run / "host=a%2Fb%20"
    assert table_folder(tmp_path, "samples", "run") == of_run / "host=__HIVE_DEFAULT_PARTITION__"
    assert table_folder(tmp_path, "samples", "run", "") == of_run / "host=__HIVE_DEFAULT_PARTITION__"
    for table in ("events", "segments", "experiments"):
        assert table_folder(tmp_path, table, "run", "a") == tmp_path / f"table={table}" / "experiment_id=run"
    assert sealed.manifest_folder(tmp_path, "run") == tmp_path / "manifests" / "experiment_id=run"


def test_which_tables_are_sealed() -> None:
    """All that anybody asks, each once."""
    assert {*OF_SEGMENTS} == {"samples", "samples_1s", "requests"}
    assert [*OF_EXPERIMENTS] == ["segments", "events", *DERIVED_TABLES]


def test_a_sealed_folder_is_found(tmp_path: Path) -> None:
    """Of a store or by itself; where there is none, it says what to do."""
    with pytest.raises(
        StoreError, match=r"nothing is sealed at .*expected a store with a folder 'sealed'.*llem seal"
    ):
        sealed_folder(tmp_path)
    (tmp_path / "sealed" / "table=events").mkdir(parents=True)
    assert sealed_folder(tmp_path) == sealed_folder(tmp_path / "sealed") == (tmp_path / "sealed").resolve()


def test_an_experiment_without_its_result_was_sealed_in_part(tmp_path: Path) -> None:
    """In the order of their names."""
    for table, name in (
        *(("samples", "b"), ("requests", "a"), ("samples_1s", "c"), ("samples", "d")),
        *(("experiments", "d"), ("events", "e"), ("experiments", "f")),
    ):
        (tmp_path / f"table={table}" / f"experiment_id={name}").mkdir(parents=True)
    assert sealed_in_part(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize(("name", "described"), [("plain", True), ("odd [x]*", False)])
def test_views_have_what_tables_have(tmp_path: Path, name: str, described: bool) -> None:
    """Columns, types and comments; a table without files is empty."""
    root = tmp_path / name
    for number, host in ((7, "alpha"), (8, None)):
        put(
            root, "requests", columns_of("requests", request_id=str(number), finish_reason="'eos'"), host=host
        )
    put(root, "experiments", columns_of("experiments", status="'completed'"))
    with open_sealed(root, described=described) as found:
        rows = found.execute("SELECT experiment_id, request_id, finish_reason FROM requests ORDER BY ALL")
        assert rows.fetchall() == [("run", 7, "eos"), ("run", 8, "eos")]
        assert found.execute("SELECT status FROM experiments").fetchall() == [("completed",)]
        assert found.execute("SELECT count(*) FROM samples").fetchall() == [(0,)]
        for table in ("requests", "experiments", "samples"):
            assert database.Tables(found).types(table) == schema()[table]
        [(kind, comment)] = found.execute(sealed._KIND, {"table": "requests"}).fetchall()
        said = found.execute(
            "SELECT bool_and(comment IS NOT NULL) FROM duckdb_columns() WHERE table_name = 'requests'"
        ).fetchall()
        assert (kind, comment is not None, said) == ("VIEW", described, [(described,)])


@pytest.mark.parametrize("content", [b"no Parquet", None])
def test_files_that_do_not_fit_are_named(tmp_path: Path, content: bytes | None) -> None:
    """Damaged ones, and those of another llem."""
    file = put(tmp_path, "requests", "SELECT 1 AS colour")
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(
        StoreError, match=r"sealed Parquet of table requests.*expected files of this llem"
    ) as told:
        open_sealed(tmp_path, described=False)
    assert "\n" not in told.value.found


@pytest.mark.parametrize("closed", ["table=samples", "table=samples/experiment_id=run", "table=events", ""])
def test_a_folder_that_cannot_be_listed_is_not_taken_for_empty(
    tmp_path: Path, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one of a table nor one of an experiment; reading and entering are both needed."""
    (tmp_path / "table=samples" / "experiment_id=run").mkdir(parents=True)
    (tmp_path / "table=events").mkdir()
    asked: set[int] = set()

    def access(path: Path, mode: int) -> bool:
        asked.add(mode)
        return path != tmp_path / closed

    monkeypatch.setattr(os, "access", access)
    if not closed:
        open_sealed(tmp_path, described=False).close()
        assert asked == {os.R_OK | os.X_OK}
        return
    with pytest.raises(
        StoreError, match=f"sealed folder .*{closed} cannot be read.*Permission denied.*chmod -R a.rX"
    ):
        open_sealed(tmp_path)
