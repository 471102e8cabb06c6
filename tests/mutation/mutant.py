"""What a mutant is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one place: `start` and `end` are offsets into the file's text."""

    file: str
    line: int
    start: int
    end: int
    other: str
    owner: str
    """The function it is in, as `name:line`; "" at the top of a module. A Lua script has one owner, itself."""

    def apply(self, text: str) -> str:
        """Return the text with the change made."""
        return text[: self.start] + self.other + text[self.end :]

    def tell(self, text: str) -> str:
        """Say what is changed, on one line."""
        was, now = (" ".join(part.split()) for part in (text[self.start : self.end], self.other))
        return f"{self.file}:{self.line}: {was or 'nothing'} -> {now or 'nothing'}"
