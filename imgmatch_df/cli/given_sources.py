"""The SOURCE arguments of a command, with the options that say how they are listed."""

from collections.abc import Iterable, Sequence
from typing import Self

from imgmatch_df.errors import ArgumentError
from imgmatch_df.images.exclusion import Rules
from imgmatch_df.images.scan import make_rules


class GivenSources(list[str]):
    """The SOURCE arguments, and the options about them.

    Parameters
    ----------
    sources
        The values of SOURCE.
    files_from
        Value of --files-from, or None.
    null
        Whether the sources of a list end with NUL.
    exclude, hidden, follow_links
        As of `scan_images`.

    Attributes
    ----------
    of_reference
        Whether they are the sources of --reference.
    """

    def __init__(
        self,
        sources: Iterable[str] = (),
        *,
        files_from: str | None = None,
        null: bool = False,
        exclude: Sequence[str] = (),
        hidden: bool = False,
        follow_links: bool = False,
    ) -> None:
        super().__init__(sources)
        self.files_from = files_from
        self.null = null
        self.of_reference = False
        self._rules = Rules(True, tuple(exclude), hidden, follow_links)

    @classmethod
    def of(cls, sources: Sequence[str]) -> Self:
        """Return `sources`, with the default options if they have none."""
        return sources if isinstance(sources, cls) else cls(sources)

    def __bool__(self) -> bool:
        return len(self) > 0 or self.files_from is not None

    def rules(self) -> Rules:
        """Return the checked rules of listings.

        Raises
        ------
        ArgumentError
            If a pattern is invalid.
        """
        return make_rules(self._rules.recursive, self._rules.exclude, self._rules.hidden, self._rules.follow_links)

    def check(self) -> None:
        """Refuse a call without sources, or with two kinds of them.

        Raises
        ------
        ArgumentError
            If there are none, or both SOURCE and --files-from.
        """
        if not self:
            raise ArgumentError(
                "SOURCE is missing\nHint: a folder, an image, a glob, a table, a list .txt, or - for standard input."
            )
        if self.files_from is not None and len(self) > 0:
            raise ArgumentError(f"--files-from names the sources, got also SOURCE {self[0]!r}\nHint: pass one of them.")
        if self.count("-") + (self.files_from == "-") > 1:
            raise ArgumentError("standard input can be read once\nHint: pass - once.")

    def words(self) -> list[str]:
        """Return the words of a command line with these arguments."""
        rules = self._rules
        options = [word for pattern in rules.exclude for word in ("--exclude", pattern)]
        options += [] if self.files_from is None else ["--files-from", self.files_from]
        flags = {"--null": self.null, "--hidden": rules.hidden, "--follow-links": rules.follow_links}
        return [*self, *options, *(name for name, wanted in flags.items() if wanted)]

    def alike(self, sources: Sequence[str]) -> Self:
        """Return the sources of --reference, for which the rules of listings count where they can."""
        rules = self._rules
        others = type(self)(sources, exclude=rules.exclude, hidden=rules.hidden, follow_links=rules.follow_links)
        others.of_reference = True
        return others
