"""``affectlens stimuli import`` and ``export``."""

from pathlib import Path
from typing import Annotated

import typer

from affectlens.errors import BatteryError

Column = Annotated[str | None, typer.Option(help="The column of this name, for a table of yours.")]


def import_command(
    file: Annotated[str | None, typer.Argument(help="A file, a folder, or a hub id.")] = None,
    reader: Annotated[
        str | None,
        typer.Option(
            "--as", help="affect-reception, aipsy-affect, sev, goemotions, crowd-envent, emobank, repe or isear."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write the battery (JSONL).")] = None,
    text_col: Column = None,
    label_col: Column = None,
    group_col: Column = None,
    domain_col: Column = None,
    valence_col: Column = None,
    intensity_col: Column = None,
    role_col: Column = None,
    author_col: Column = None,
    id_col: Column = None,
    neutral: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL",
            help="A label of your table that stands for no emotion, instead of neutral, none and 0; repeat for each.",
        ),
    ] = None,
    ratings: Annotated[
        list[Path] | None, typer.Option(help="Filled-in rating sheets of `export --survey`; repeat for each rater.")
    ] = None,
    battery: Annotated[str, typer.Option(help="The battery that was rated.")] = "full",
    readers: Annotated[bool, typer.Option("--list", help="List the readers, with licences.")] = False,
) -> None:
    """Read another's battery, any table, or the ratings of people.

    Examples: affectlens stimuli import stimuli.jsonl --as affect-reception -o theirs.jsonl;
    affectlens stimuli import mine.csv --text-col story --label-col emotion -o mine.jsonl;
    affectlens stimuli import --ratings rater_1.csv --ratings rater_2.csv --battery starter
    """
    from affectlens.console import say, table
    from affectlens.stimuli.importing import NEUTRAL, open_battery, read_published, read_table, write_battery
    from affectlens.stimuli.published import SOURCES
    from affectlens.stimuli.rating import read_ratings

    if readers:
        rows = [[name, s.title, s.files, s.licence, s.citation] for name, s in SOURCES.items()]
        table("Readers", ["--as", "battery", "give", "licence", "source"], rows)
        return
    if ratings:
        say(repr(read_ratings(open_battery(battery, None), ratings)))
        return
    if file is None:
        raise BatteryError("Give a file to import, --ratings, or --list.")
    if reader is not None:
        found = read_published(reader, file)
    else:
        named = {"text": text_col, "label": label_col, "group": group_col, "domain": domain_col, "valence": valence_col,
                 "intensity": intensity_col, "role": role_col, "author": author_col, "id": id_col}  # fmt: skip
        if text_col is None:
            raise BatteryError("Say what the file is: --as READER (see --list), or at least --text-col COLUMN.")
        columns = {k: v for k, v in named.items() if v is not None}
        found = read_table(Path(file), columns, neutral=NEUTRAL if neutral is None else neutral)
    say(repr(found.battery))
    say(f"Licence: {found.battery.licence}. Source: {found.battery.source}.")
    for note in found.notes:
        say(f"- {note}")
    counts = found.battery.counts()
    table("", list(counts.columns), counts.to_numpy().tolist())
    if out is not None:
        say(f"\nWritten: {write_battery(out, found.battery)}")


def export_command(
    battery: Annotated[str, typer.Argument(help="A battery of ours (starter, core, full), or a JSONL file.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A .jsonl, .csv or .parquet file, or a folder for --survey.")
    ],
    survey: Annotated[bool, typer.Option("--survey", help="Write blind rating sheets for people.")] = False,
    raters: Annotated[int, typer.Option(help="With --survey: how many sheets.")] = 3,
    each: Annotated[
        int | None, typer.Option(help="With --survey: texts a rater; one of each group by default.")
    ] = None,
    together: Annotated[int, typer.Option(help="With --survey: how many raters read the same twin of a pair.")] = 3,
    seed: Annotated[int, typer.Option(help="With --survey: of the order and of who gets what.")] = 0,
) -> None:
    """Write a battery as a file, or as rating sheets.

    Examples: affectlens stimuli export core -o core.csv;
    affectlens stimuli export starter --survey --raters 3 -o survey
    """
    from affectlens.console import say
    from affectlens.paths import write_parquet, write_text
    from affectlens.stimuli.importing import open_battery, write_battery
    from affectlens.stimuli.rating import write_survey

    loaded = open_battery(battery, None)
    if survey:
        paths = write_survey(out, loaded, raters, each=each, together=together, seed=seed)
        say(f"{raters} sheets, key and instructions in {out} ({', '.join(p.name for p in paths)}).")
        say("Read them back with: affectlens stimuli import --ratings FILE ... --battery " + battery)
        return
    frame = loaded.frame()
    kind = out.suffix.lower()
    if kind == ".jsonl":
        write_battery(out, loaded)
    elif kind in (".csv", ".parquet"):
        import json

        frame["meta"] = [json.dumps(meta, ensure_ascii=False) for meta in frame["meta"]]
        if kind == ".csv":
            write_text(out, frame.to_csv(index=False))
        else:
            write_parquet(out, frame)
    else:
        raise BatteryError(f"{out.name} has no ending that says its kind: .jsonl, .csv or .parquet.")
    say(f"Written: {out} ({len(loaded)} items, {loaded.licence}).")
