"""The documents read by machine: their blocks, their commands, their files."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = {path.name: path for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]}
TEXTS = {name: path.read_text() for name, path in DOCUMENTS.items()}
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
TRAIN = (["python", "train.py"], ["taskshift", "train"])
ASKS_HYDRA = {"--help", "--hydra-help", "--cfg"}


@dataclass(frozen=True)
class Block:
    """A fenced block; `file` is what its first line, or else the text before it, calls it."""

    language: str
    text: str
    file: str | None


def blocks_of(name: str) -> list[Block]:
    return [_block(match) for match in BLOCK.finditer(TEXTS[name])]


def _block(match: re.Match[str]) -> Block:
    language, text = match[2], re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE)
    first, _, rest = text.partition("\n")
    if language in ("python", "yaml") and (named := re.fullmatch(r"# (\S+\.(?:py|yaml))", first)):
        return Block(language, rest, named[1])
    before = re.findall(r"`(\w+\.py)`", BLOCK.sub("", match.string[: match.start()]))
    return Block(language, text, before[-1] if language == "python" and before else None)


def prose(name: str) -> str:
    return BLOCK.sub("", TEXTS[name])


def inline(name: str) -> list[str]:
    """What stands between backticks; in a table `\\|` is a bar."""
    return [code.replace("\\|", "|") for code in re.findall(r"`([^`\n]+)`", prose(name))]


def commands_of(name: str) -> list[str]:
    """Every command line of a document that does not leave something out."""
    shell = [block.text for block in blocks_of(name) if block.language in ("bash", "sh")]
    lines = [line.strip() for text in shell for line in text.replace("\\\n", " ").splitlines()]
    said = [code for code in inline(name) if re.match(r"(python \S+\.py|taskshift|make) ", code)]
    return [line for line in [*lines, *said] if line and not line.startswith("#") and "…" not in line]


def words_of(command: str) -> list[str] | None:
    """What a training command gives to Hydra, a sweep's first choices taken; None for another command."""
    words = shlex.split(command, comments=True)
    if words[:2] not in TRAIN or ASKS_HYDRA & set(words):
        return None
    given = words[2:]
    if {"--multirun", "-m"} & set(given) or "cluster=slurm" in given:
        given = [_first_choice(word) for word in given if word not in ("--multirun", "-m")]
    folders = [word.partition("=")[2] for word in given if word.startswith("--config-dir=")]
    return [word for word in given if not word.startswith("--")] + [f"hydra.searchpath=[file://{folder}]" for folder in folders]


def _first_choice(word: str) -> str:
    [override] = OverridesParser.create().parse_overrides([word])
    return f"{override.get_key_element()}={next(override.sweep_string_iterator())}" if override.is_sweep_override() else word


def anchors(text: str) -> set[str]:
    """What a link may say behind `#`, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _is_of_the_working_directory(block: Block) -> bool:
    return block.file is not None and not block.file.startswith("conf/")


def write_plugins(folder: Path, name: str) -> None:
    """A document's modules and yamls as a user would have them in the working directory."""
    for block in filter(_is_of_the_working_directory, blocks_of(name)):
        path = folder / (Path(block.file).name if block.language == "python" else block.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)


def put_together(commands: list[list[str]]) -> list[list[str]]:
    """The commands in as few as do not contradict each other."""
    together: list[list[str]] = []
    for words in commands:
        fitting = next((run for run in together if not _contradict(run, words)), None)
        if fitting is None:
            together.append(list(words))
        else:
            plugins = dict.fromkeys([*plugins_in(fitting), *plugins_in(words)])
            fitting[:] = [word for word in [*fitting, *words] if not word.startswith("plugins=")]
            fitting += [f"plugins=[{','.join(plugins)}]"] if plugins else []
    return together


def plugins_in(words: list[str]) -> list[str]:
    """The modules that a command names as plugins."""
    return [name for word in words if word.startswith("plugins=") for name in re.findall(r"\w+", word)[1:]]


def _contradict(run: list[str], words: list[str]) -> bool:
    """Whether two commands set one key, or one chooses a whole learner or a preset where the other chooses parts."""
    ours, theirs = ({word.partition("=")[0].lstrip("+~") for word in some} - {"plugins"} for some in (run, words))
    parts_of_learners = [any(key.startswith("learner") for key in keys) for keys in (ours, theirs)]
    whole = "learner" in ours | theirs and all(parts_of_learners)
    return whole or bool(ours & theirs) or any(key in ("experiment", "hydra.searchpath") for key in ours | theirs)
