"""What a measured program tells llem through its pipe: a line of text for each region and each report, written and read here."""

from typing import NamedTuple

VARIABLE = "LLEM_REGIONS"  # the environment's: where the pipe is
MAX_NAME = 120  # characters
MAX_LINE = 4096  # bytes that a pipe takes whole or not at all, whoever else writes to it
MAX_COUNT = 2**53  # of tokens, requests or nanoseconds since the machine was started
_CONTROL = {number: f"\\x{number:02x}" for number in (*range(32), 127)}


class Place(NamedTuple):
    """Where the pipe is: a descriptor that is inherited, the process that keeps one of the same number, and what file it is."""

    descriptor: int
    holder: int
    device: int
    inode: int

    def __str__(self) -> str:
        return ":".join(map(str, self))

    @property
    def paths(self) -> tuple[str, str]:
        """Of the inherited descriptor, and of the holder's: most programs pass none on to those that they start."""
        return f"/proc/self/fd/{self.descriptor}", f"/proc/{self.holder}/fd/{self.descriptor}"


class RegionLine(NamedTuple):
    """A region as it began, and once more as it ended; ids are unique among all processes of the program."""

    speaker: str  # the process that it ran in
    lost: int  # lines of that process so far that the pipe had no room for
    number: int  # of the region within the process
    parent: str  # id of the region around it; empty for none
    began_ns: int
    ended_ns: int | None
    tokens: int | None
    requests: int | None
    name: str

    @property
    def id(self) -> str:
        """Unique among the program's regions."""
        return f"{self.speaker}/{self.number}"


class WorkLine(NamedTuple):
    """All that a process has reported since it started; None for what it never named.

    Tokens of which it did not say how many are input, or output, make the sum of those of which it did worth nothing.
    """

    speaker: str
    lost: int
    tokens: int | None
    input_tokens: int | None
    output_tokens: int | None
    requests: int | None
    tokens_without_input: int | None
    tokens_without_output: int | None


def place_in(text: str | None) -> Place | None:
    """What the environment says; None where there is nothing that could be understood."""
    try:
        return Place(*map(int, (text or "").split(":")))
    except (TypeError, ValueError):
        return None


def written(line: RegionLine | WorkLine) -> bytes:
    """The line, between two ends of lines: whatever somebody else left unfinished ends before it."""
    kind = "region" if isinstance(line, RegionLine) else "work"
    text = "\t".join([kind, *["" if field is None else str(field) for field in line]])
    return b"\n%b\n" % text.encode("utf-8", "backslashreplace")


def printable(name: str) -> str:
    """The name on one line, no longer than anybody reads."""
    name = name[:MAX_NAME]
    return name if name.isprintable() else name.translate(_CONTROL)[:MAX_NAME]


def read(line: bytes) -> RegionLine | WorkLine:
    """What a line says. Raises ValueError for one that nobody wrote here."""
    kind, *fields = line.decode("utf-8").split("\t")
    match kind, fields:
        case "region", [speaker, lost, number, parent, began_ns, ended_ns, tokens, requests, name]:
            return RegionLine(
                speaker=speaker,
                lost=_number(lost),
                number=_number(number),
                parent=parent,
                began_ns=_number(began_ns),
                ended_ns=_known(ended_ns),
                tokens=_known(tokens),
                requests=_known(requests),
                name=printable(name),
            )
        case "work", [speaker, lost, *counts] if len(counts) == len(WorkLine._fields) - 2:
            return WorkLine(speaker, _number(lost), *map(_known, counts))
    raise ValueError("neither a region nor a report")


def _number(text: str) -> int:
    number = int(text)
    if not 0 <= number <= MAX_COUNT:
        raise ValueError("beyond what can be")
    return number


def _known(text: str) -> int | None:
    return _number(text) if text else None
