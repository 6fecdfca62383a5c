"""Feeds and instruments by their names."""

from pathlib import Path

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.steering.dynamics.feeding import Feed
from affectlens.steering.dynamics.lexicons import LexiconFeed
from affectlens.steering.dynamics.reading import JudgeFeed, ProbeFeed, encoder_feed

FEEDS = ("encoder", "lexicon", "probe", "likelihood")
NO_PROBES = (
    "The feed by probes needs their file: fit them with affectlens probe MODEL --target category, and give it by "
    "--probes FILE."
)


def feed_of(
    name: str, model: LensModel, *, probes: str | Path | None = None, lexicon: str | Path | None = None,
    bounds: tuple[float, float] = (1.0, 9.0), progress: bool | None = None,
) -> Feed:  # fmt: skip
    """A feed by its name.

    Args:
        name: ``encoder`` (the bundled judge), ``lexicon`` (VADER, or a table), ``probe``, or ``likelihood`` (the
            embedded model's posterior).
        model: that probes are of.
        probes: their file.
        lexicon: a table's file; VADER by default.
        bounds: of the table's scale.
        progress: show a spinner; by default where a person is looking.

    Raises:
        SteerError: another name, or no probes.
    """
    if name == "encoder":
        return encoder_feed(progress=progress)
    if name == "lexicon":
        return LexiconFeed(lexicon, bounds=bounds)
    if name == "probe":
        if probes is None:
            raise SteerError(NO_PROBES)
        return ProbeFeed(model, probes)
    if name == "likelihood":
        from affectlens.model import load_model
        from affectlens.steering.judging import likelihood_judge
        from affectlens.steering.judging.calibrating import bundled

        known = any(one.fingerprint == model.fingerprint for one in bundled())
        return JudgeFeed(likelihood_judge(model if known else load_model("smollm2-135m", progress=progress)))
    raise SteerError(f"The feed {name!r} is not known: choose {', '.join(FEEDS)}.")


def identity(feed: Feed) -> str:
    """A feed's name, with a digest of its table or probes: of two files of one name each is another feed.

    Args:
        feed: one of ours, or your own, which counts by its name.
    """
    return f"{feed.name} {feed.digest}" if isinstance(feed, LexiconFeed | ProbeFeed) else feed.name


def other_than(feed: str) -> str:
    """The instrument that measures if none is named: another than what feeds.

    Args:
        feed: by its name.
    """
    return "encoder" if feed.startswith(("lexicon", "table")) else "lexicon"


def unlike(feed: Feed, instrument: Feed) -> None:
    """Raise a :class:`SteerError` if replies would be measured by what feeds the mood, or not in valence.

    Args:
        feed: of the mood.
        instrument: of the replies.
    """
    if feed is instrument or feed.name == instrument.name:
        raise SteerError(
            f"The mood is fed by {feed.name}, and replies would be measured by it too: then the loop would be judged "
            f"by its own reading. Measure by another, such as {other_than(feed.name)}."
        )
    if "valence" not in instrument.axes:
        raise SteerError(f"{instrument.name} does not read valence, so it can't measure replies: choose another.")
