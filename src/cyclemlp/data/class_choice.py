"""Which classes of a data set are learnt: some of them, all but some, or several as one.

Merges come first, and the other choices name what they made. Classes keep the order that they have in the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cyclemlp.data.folders import name_key
from cyclemlp.data.problems import listed
from cyclemlp.errors import ConfigError, did_you_mean

Fate = Literal["ignored", "left out"]
BACKGROUNDS = frozenset(
    ("background", "bg", "other", "others", "rest", "none", "nothing", "void", "unlabelled", "unlabeled", "clutter")
)
"""Names of a class 0, in lower case, that is what no other class is."""


def is_background(classes: Sequence[str]) -> bool:
    """Whether class 0 is what no other class is, by its name; alone it would be the whole image."""
    return len(classes) > 1 and classes[0].strip(" _-").lower() in BACKGROUNDS


@dataclass(frozen=True)
class ClassTable:
    """The classes that are learnt, and what becomes of each class of the data."""

    classes: tuple[str, ...]
    of: tuple[int | Fate, ...]
    """For each class of the data: the number that it has now, or why it has none."""

    def with_background(self, names: Sequence[str]) -> "ClassTable":
        """With a class for what is left out: the background of the data, whose classes have these names, or a new one.

        The same where nothing is left out.
        """
        if "left out" not in self.of:
            return self
        if is_background(names) and self.of[0] != "ignored":
            if self.of[0] != "left out":
                return ClassTable(self.classes, tuple(self.of[0] if fate == "left out" else fate for fate in self.of))
            background = names[0]
        else:
            taken = {name_key(name).casefold() for name in (*names, *self.classes)}
            numbered = (f"background {number}" for number in range(2, len(taken) + 3))
            possible = ("background", "other", "rest", *numbered)
            background = next(name for name in possible if name_key(name) not in taken)
        moved = tuple(fate + 1 if isinstance(fate, int) else 0 if fate == "left out" else fate for fate in self.of)
        return ClassTable((background, *self.classes), moved)


@dataclass(frozen=True)
class ClassChoice:
    """Which classes are learnt; by default all."""

    classes: tuple[str, ...] | None = None
    """Learn these classes alone. What is of another one is background (segmentation; a class of its own), no object (detection), or not used (classification)."""  # noqa: E501
    ignore_classes: tuple[str, ...] | None = None
    """Learn nothing about what is of these classes, and do not score it: its pixels are ignored, in the boxes of such objects anything may be found, and such images are not used."""  # noqa: E501
    merge: tuple[str, ...] | None = None
    """Learn several classes as one, such as vehicle=car,truck; --classes and --ignore-classes then name vehicle."""

    def __post_init__(self) -> None:
        for option, names in (("--classes", self.classes), ("--ignore-classes", self.ignore_classes)):
            _refuse_repeated(option, names or ())
        both = sorted({*map(name_key, self.classes or ())} & {*map(name_key, self.ignore_classes or ())})
        if both:
            raise ConfigError(f"--classes and --ignore-classes both name {both[0]!r}: leave it out of one of them")
        _refuse_repeated("--merge", [part for _, parts in self.merges() for part in parts])
        _refuse_repeated("--merge", [whole for whole, _ in self.merges()])

    def __bool__(self) -> bool:
        return any(each is not None for each in (self.classes, self.ignore_classes, self.merge))

    def merges(self) -> list[tuple[str, tuple[str, ...]]]:
        """Each class that --merge makes, with its parts. Raises ConfigError for other texts."""
        found = []
        for text in self.merge or ():
            whole, equals, listed_parts = text.partition("=")
            parts = tuple(part.strip() for part in listed_parts.split(","))
            if not (equals and whole.strip() and all(parts)):
                raise ConfigError(f"--merge {text!r}: give a new name and the classes it stands for: vehicle=car,truck")
            found.append((whole.strip(), parts))
        return found

    def table(self, names: Sequence[str]) -> ClassTable:
        """What becomes of the classes with these names. Raises ConfigError for a name that is none of them."""
        merged = self._merged(names)
        known = list(dict.fromkeys(merged))
        only = None if self.classes is None else self._known("--classes", self.classes, known, names)
        ignored = self._known("--ignore-classes", self.ignore_classes or (), known, names)
        kept = [name for name in known if name not in ignored and (only is None or name in only)]
        fates: list[int | Fate] = [
            kept.index(name) if name in kept else "ignored" if name in ignored else "left out" for name in merged
        ]
        return ClassTable(tuple(kept), tuple(fates))

    def _merged(self, names: Sequence[str]) -> list[str]:
        """The name of each class after merges."""
        now = list(names)
        place = {name_key(name): i for i, name in enumerate(names)}
        merges = self.merges()
        parts_of_all = {name_key(part) for _, parts in merges for part in parts}
        for whole, parts in merges:
            if name_key(whole) in parts_of_all and name_key(whole) not in map(name_key, parts):
                raise ConfigError(f"--merge {whole}=...: {whole} is a part of another merge: give it a new name")
            for part in parts:
                if name_key(part) not in place:
                    raise ConfigError(_unknown("--merge", part, names))
                now[place[name_key(part)]] = names[place[name_key(whole)]] if name_key(whole) in place else whole
        return now

    def _known(self, option: str, given: Sequence[str], known: Sequence[str], names: Sequence[str]) -> set[str]:
        """The names as the data have them."""
        by_key = {name_key(name): name for name in known}
        for name in given:
            if name_key(name) in by_key:
                continue
            if name_key(name) in map(name_key, names):
                whole = next(each for each, parts in self.merges() if name_key(name) in map(name_key, parts))
                raise ConfigError(f"{option}: {name} is a part of {whole} by --merge: give {whole}")
            raise ConfigError(_unknown(option, name, known))
        return {by_key[name_key(name)] for name in given}


def _refuse_repeated(option: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in map(name_key, names):
        if name in seen:
            raise ConfigError(f"{option} names {name!r} twice: leave one of them out")
        seen.add(name)


def _unknown(option: str, name: str, known: Sequence[str]) -> str:
    near = did_you_mean(name, known)
    return f"{option}: {name!r} is not a class of the data, which have {len(known)} ({listed(known, 12)}).{near}"
