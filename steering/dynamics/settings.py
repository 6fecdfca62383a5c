"""How much is said and how: the numbers that a study depends on."""

from dataclasses import dataclass, replace

from affectlens.errors import SteerError
from affectlens.steering.dynamics.measuring import WINDOW
from affectlens.steering.dynamics.scripts import PROTOCOLS, TURNS, Script, load_scripts
from affectlens.steering.dynamics.state import FirstOrder, Rule, SecondOrder


@dataclass(frozen=True)
class Setup:
    """The numbers of a study.

    Attributes:
        rules: by which moods move; of one baseline.
        scripts: how many of ours, or scripts of your own, of the same turns.
        turns: of each of ours.
        protocols: push, ramp or both.
        repeats: conversations a script, each with other luck; they are averaged.
        own: the weight of the model's own last reply in what the mood is told.
        full: the offset of a mood, beyond ``still``, at which doses reach the ceiling.
        ceiling: the largest sum of doses.
        nearest: how many emotions share it.
        still: the offset up to which a mood counts as at rest and steers nothing; by default how far moods stray in
            95% of the calm turns of plain conversations.
        emotions: that are steered; by default all that have directions.
        history: exchanges before the last line that the model is shown.
        max_new_tokens: the longest reply.
        temperature: 0 takes the likeliest token.
        top_p: sample from the likeliest tokens that have this probability together.
        band: half the width within which replies count as settled; by default what noise like that of plain replies to
            calm turns stays within after a push in 95% of the scripts, and 0.1 at least.
        window: turns over which they are smoothed.
        seed: of sampling, orders and bootstraps.
    """

    rules: tuple[Rule, ...] = (FirstOrder(), SecondOrder())
    scripts: int | tuple[Script, ...] = 6
    turns: int = TURNS
    protocols: tuple[str, ...] = PROTOCOLS
    repeats: int = 1
    own: float = 0.25
    full: float = 0.25
    ceiling: float = 1.0
    nearest: int = 1
    still: float | None = None
    emotions: tuple[str, ...] | None = None
    history: int = 4
    max_new_tokens: int = 32
    temperature: float = 0.7
    top_p: float = 0.95
    band: float | None = None
    window: int = WINDOW
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.rules or len({rule.says for rule in self.rules}) < len(self.rules):
            raise SteerError("Give one rule at least, and each once.")
        if len({rule.baseline for rule in self.rules}) > 1:
            raise SteerError("These rules return to different baselines: compare them in two runs.")
        if set(self.protocols) - set(PROTOCOLS) or not self.protocols:
            raise SteerError(f"The protocols are {', '.join(self.protocols)}: choose push, ramp or both.")
        wrong = self.repeats < 1 or self.window < 1 or self.history < 0 or self.own < 0
        if wrong or (self.band is not None and self.band <= 0):
            raise SteerError("repeats and window are 1 or more, history and own 0 or more, and a band is above 0.")

    def spoken(self) -> list[Script]:
        """The scripts that are gone through.

        Raises:
            SteerError: scripts of different lengths, domains or signs, or too many of ours.
        """
        if isinstance(self.scripts, int):
            return [
                one for name in self.protocols for one in load_scripts(protocol=name, n=self.scripts, turns=self.turns)
            ]
        found = [one for one in self.scripts if one.protocol in self.protocols]
        domains = {name: [one.name for one in found if one.protocol == name] for name in self.protocols}
        same = len({(len(one), one.sign) for one in found}) == 1 and len(
            {(o.protocol, o.levels) for o in found}
        ) == len(domains)
        if not same or len({frozenset(names) for names in domains.values()}) > 1 or any(
            len(set(names)) < len(names) for names in domains.values()
        ):  # fmt: skip
            raise SteerError(
                "Scripts of one study have one length and sign, one sequence of levels for each protocol, and the same "
                "names, each once, under each protocol."
            )
        return found

    @property
    def quick(self) -> "Setup":
        """A first look: three scripts of the push, short replies, one exchange of history."""
        few = 3 if isinstance(self.scripts, int) else self.scripts
        tokens = min(self.max_new_tokens, 12)
        return replace(
            self, scripts=few, protocols=self.protocols[:1], max_new_tokens=tokens, history=min(self.history, 1)
        )
