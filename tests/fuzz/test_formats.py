"""Odd files of every format that llem imports, into a store that answers afterwards.

LLEM_FUZZ_SECONDS sets how long each format is tried (1 unless set), LLEM_FUZZ_SEED where its seeds begin: see tests/fuzz/test_fuzz.py.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import inputs
from tests.fuzz.inputs import Odd
from tests.fuzz.program import Ended, call
from tests.fuzz.test_fuzz import try_seed
from tests.importing.files import FILES, content

SECONDS = float(os.environ.get("LLEM_FUZZ_SECONDS", "1"))
SEED = int(os.environ.get("LLEM_FUZZ_SEED", "0"))
TIMES = ["--timezone", "UTC"]
TOLD = {
    "sglang-bench": ["--start", "2026-03-01"],
    "optimum-benchmark": ["--start", "2026-03-01"],
    "dcgmi": ["--start", "2026-03-01", "--interval", "1"],
    "nvidia-smi": ["--window", "5,15"],
}
ASK_EVERY = 20


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 600)
@pytest.mark.parametrize("name", FILES)
def test_odd_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is refused in one line or imported, and the tables can be asked."""
    monkeypatch.setenv("LLEM_DIR", str(tmp_path / "store"))
    monkeypatch.setenv("NO_COLOR", "1")
    original = content(name)

    def imports(odd: Odd, folder: Path) -> Iterator[Ended]:
        (folder / "file").write_bytes(inputs.odd_file(odd, original))
        options = [*TIMES, *TOLD.get(FILES[name], []), *odd.choice([[], ["--dry-run"], ["--keep-bytes"]])]
        yield call(["import", "file", *options], folder=folder)
        if odd.randrange(ASK_EVERY) == 0 and (tmp_path / "store").exists():
            yield call(["query", "select * from experiment_results"], folder=folder)

    deadline, tried = time.monotonic() + SECONDS, 0
    while tried == 0 or time.monotonic() < deadline:
        try_seed(imports, SEED + tried, tmp_path)
        tried += 1
