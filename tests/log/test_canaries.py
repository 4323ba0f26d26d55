"""Secrets are planted in every channel of the real program, and the whole store and all it says is searched for them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import zstandard

from llem_events.secrets import scrub, scrub_value
from tests.conftest import QUICK, SIMULATED, Run
from tests.export.test_import import FIELDS
from tests.log.canaries import Canary, canaries

NO_BASELINE = ("--set", "windows.baseline_s=0", "--set", "windows.baseline_after_s=0")
READERS = (
    ("show", "@last"),
    ("show", "@last", "--json"),
    ("runs", "--json"),
    ("query", "-f", "csv", "SELECT * FROM experiments"),
    ("query", "-f", "json", "SELECT * FROM events"),
    ("export", "{out}.csv"),
    ("export", "{out}.json"),
    ("log", "cat", "@last"),
    ("log", "info", "@last"),
)


def plain_bytes(path: Path) -> bytes:
    """A file, with what is compressed in it."""
    data = path.read_bytes()
    if not path.name.endswith(".zst"):
        return data
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return data + reader.read()


def said_and_kept(llem: Run, store: Path, out: Path, done: Iterable[str]) -> bytes:
    """All that the store holds, all that its readers say, and what was said before."""
    said = list(done)
    for reader in READERS:
        ran = llem(*(word.replace("{out}", str(out)) for word in reader))
        assert ran.returncode == 0, (reader, ran.stderr)
        said += [ran.stdout, ran.stderr]
    files = [path for folder in (store, out.parent) for path in folder.rglob("*") if path.is_file()]
    return "\n".join(said).encode() + b"".join(map(plain_bytes, files))


def found(planted: Mapping[str, Canary], haystack: bytes) -> list[str]:
    """Kinds of which a telling part is there: eight characters from the middle of the secret."""
    return [kind for kind, canary in planted.items() if telling_part(canary.secret).encode() in haystack]


def telling_part(secret: str) -> str:
    """What nobody would write by chance, also where a secret is cut or written with escapes."""
    middle = len(secret) // 2
    return secret[middle - 4 : middle + 4]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where exports go."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "all"


@pytest.mark.slow
def test_a_wrapped_command_gets_its_secrets_and_the_log_does_not(
    llem: Run, store: Path, out: Path, tmp_path: Path
) -> None:
    """Forty secrets in arguments, labels, the name and variables: the program sees every one, and nobody after it."""
    planted = canaries()
    argv = [item for canary in planted.values() for item in canary.argv]
    labels = [
        item
        for number, canary in enumerate(planted.values())
        for item in ("--label", f"note{number}={canary.sentence}")
    ]
    name = " and ".join(planted[kind].sentence for kind in ("hugging face", "an option", "a header"))
    variables = {
        "HF_TOKEN": planted["hugging face"].secret,
        "CUDA_API_KEY": planted["an option"].secret,
        "NVIDIA_URL": planted["a database"].sentence,
        "OMP_NOTE": planted["aws"].secret,
    }
    seen = tmp_path / "seen"
    program = ["sh", "-c", 'printf "%s\\n" "$@" > "$0"', str(seen), *argv]
    done = llem("measure", *SIMULATED[2:], *NO_BASELINE, "--name", name, *labels, "--", *program, **variables)
    assert done.returncode == 0, done.stderr
    assert found(planted, seen.read_bytes()) == list(planted)
    assert found(planted, said_and_kept(llem, store, out, [done.stdout, done.stderr])) == []


@pytest.mark.slow
def test_secrets_of_a_plan_of_prompts_and_of_errors_are_kept_nowhere(
    llem: Run, store: Path, out: Path, tmp_path: Path
) -> None:
    """In strings of a plan, in prompts whose text is recorded, and in what is said of a plan that is refused."""
    planted = canaries()
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({"prompt": canary.sentence}) + "\n" for canary in planted.values()), "utf-8"
    )
    settings = [f"workload.path={prompts}", "workload.record_text=true", "workload.requests=64"]
    named = ["--name", planted["openai"].sentence, "--label", f"hf_token={planted['an option'].secret}"]
    done = llem("measure", *SIMULATED, *QUICK, *(f"--set={each}" for each in settings), *named)
    assert done.returncode == 0, done.stderr
    prompts.unlink()
    said = [done.stdout, done.stderr]
    for canary in planted.values():
        refused = llem("measure", *SIMULATED, "--set", f"workload.requests={canary.sentence}")
        assert refused.returncode == 2
        said += [refused.stdout, refused.stderr]
    shown = llem("measure", *SIMULATED, *named, "--dry-run")
    haystack = said_and_kept(llem, store, out, [*said, shown.stdout, shown.stderr])
    assert found(planted, haystack) == []
    assert b"***" in haystack


@pytest.mark.slow
def test_secrets_of_an_imported_file_are_kept_nowhere(
    llem: Run, store: Path, out: Path, tmp_path: Path
) -> None:
    """In its configuration, labels and notes, under names that tell and under others, and in its own name."""
    planted = canaries()
    texts = {kind: canary.sentence for kind, canary in planted.items()}
    nested = {"list": [canary.argv for canary in planted.values()], "api_key": planted["an option"].secret}
    document = FIELDS | {
        "effective_config": {"texts": texts, "nested": nested},
        "labels": {kind.replace(" ", "_"): text for kind, text in texts.items()},
        "reproducibility_notes": " ".join(texts.values()),
        "measurement_warnings": list(texts.values()),
    }
    source = tmp_path / f"{planted['github'].secret}.json"
    source.write_text(json.dumps(document), "utf-8")
    done = llem("import", source)
    source.unlink()
    assert done.returncode == 0, done.stderr
    assert found(planted, said_and_kept(llem, store, out, [done.stdout, done.stderr])) == []


@pytest.mark.parametrize("kind", sorted(canaries()))
def test_each_secret_goes_from_sentences_and_from_command_lines(kind: str) -> None:
    """Alone, in the middle of a sentence, as items of a command line and as JSON of them."""
    canary = canaries()[kind]
    for text in (canary.sentence, f"it said: {canary.sentence} and ended", json.dumps(canary.argv)):
        assert telling_part(canary.secret) not in scrub(text)
    assert telling_part(canary.secret) not in "".join(scrub_value(canary.argv))


@pytest.mark.parametrize(
    ("argv", "kept"),
    [
        (["sshpass", "-p", "hunter2", "ssh", "host"], ["sshpass", "-p", "***", "ssh", "host"]),
        (["mysql", "-uroot", "-phunter2"], ["mysql", "-uroot", "-p***"]),
        (["sshpass", "-phunter2", "ssh"], ["sshpass", "-p***", "ssh"]),
        (["/usr/bin/mariadb-dump", "-px", "runs"], ["/usr/bin/mariadb-dump", "-p***", "runs"]),
        (["mysql", "-p", "runs"], ["mysql", "-p", "runs"]),
        *(([program, "-px"], [program, "-p***"]) for program in ("mysqldump", "mysqladmin", "mariadb")),
        (["python", "-phunter2"], ["python", "-phunter2"]),
        (["ssh", "-p", "22"], ["ssh", "-p", "22"]),
        (["curl", "-U", "me:hunter2"], ["curl", "-U", "me:***"]),
        (["curl", "--proxy-user", "me:hunter2"], ["curl", "--proxy-user", "me:***"]),
        (["curl", "-u", "me", "a:b"], ["curl", "-u", "me", "a:b"]),
        (["x" * 600, "--token", "abc"], ["x" * 600, "--token", "***"]),
        ([["--token", "abc"], 5, "abc"], [["--token", "***"], 5, "abc"]),
        (["HF_TOKEN=a b", "PATH=/bin"], ["HF_TOKEN=***", "PATH=/bin"]),
        (["vllm", "serve", "-p", "8000"], ["vllm", "serve", "-p", "8000"]),
        (["docker", "run", "--user", "1000:1000"], ["docker", "run", "--user", "1000:1000"]),
        (
            ["run.py", "--max-tokens", "5", "--tokenizer", "bytes"],
            ["run.py", "--max-tokens", "5", "--tokenizer", "bytes"],
        ),
    ],
)
def test_short_options_are_judged_by_their_program(argv: list[str], kept: list[str]) -> None:
    """`-p` is a password for some programs and a port or a prompt for others."""
    assert scrub_value(argv) == kept
