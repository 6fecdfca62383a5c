"""The audit: it fails on planted faults and names them, reads chance where nothing is, and passes our batteries."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import MultinomialNB

from affectlens.errors import BatteryError
from affectlens.stats import Estimate
from affectlens.stimuli import Battery, Stimulus, load_battery
from affectlens.stimuli.auditing import Audit, Bounds, Finding, audit
from affectlens.stimuli.auditing.designs import Design, Pair
from affectlens.stimuli.auditing.floors import category, floors, leaks
from affectlens.stimuli.auditing.inputs import changed_bounds, find_encoder, read_lexicon
from affectlens.stimuli.auditing.matching import jaccard, matching
from affectlens.stimuli.auditing.quadruples import _finding, additive, mention_features, shallow
from affectlens.stimuli.auditing.readers import held_out, products, span
from affectlens.stimuli.auditing.reported import encoded, lexicons, vader
from affectlens.stimuli.auditing.structure import balance, completeness, integrity
from affectlens.stimuli.auditing.wording import emotion_words, keywords, repeats
from affectlens.stimuli.lexical import NEGATIONS, count, sentences, words

STARTER = load_battery("starter")
BOUNDS = Bounds()
FILLER = "red blue cup door lamp road stone river table chair window garden paper bread coat".split()


def changed(battery: Battery, change: Callable[[Stimulus], Stimulus]) -> Battery:
    return Battery(battery.name, tuple(change(s) for s in battery), battery.licence, battery.source)


def letter(i: int) -> str:
    return "abcdefgh"[i % 8]


def telling(where: Callable[[Stimulus], bool], what: Callable[[str], str]) -> Battery:
    """The starter with the text of some items changed."""
    return changed(STARTER, lambda s: replace(s, text=what(s.text), meta={}) if where(s) else s)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {f.name: f for f in findings}


def peaks(s: Stimulus) -> bool:
    return s.split == "vignettes" and s.role == "emotional"


def neutrals(s: Stimulus) -> bool:
    return s.split == "vignettes" and s.role == "neutral"


def value(finding: Finding) -> float:
    assert isinstance(finding.figure, Estimate)
    return finding.figure.value


# planted faults -------------------------------------------------------------------------------------------------------


def test_a_keyword_is_found_and_named() -> None:
    planted = telling(lambda s: s.id == "v.joy.family.1.peak", lambda t: t + " He was delighted.")
    found = by_name(keywords(Design(planted)))["emotion words"]
    assert found.passed is False
    assert [(w.item, w.say) for w in found.worst] == [("v.joy.family.1.peak", "delighted")]
    assert by_name(keywords(Design(STARTER)))["emotion words"].passed


def test_a_cliche_is_found_and_named() -> None:
    planted = telling(lambda s: s.id == "n.01", lambda t: t + " Sadly, her heart sank!")
    found = by_name(keywords(Design(planted)))["cliches and evaluative adverbs"]
    assert found.passed is False
    assert found.worst[0].item == "n.01"
    assert set(found.worst[0].say.lower().split(", ")) == {"sadly", "heart sank", "!"}


def test_a_length_leak_is_found_and_named() -> None:
    planted = telling(
        peaks, lambda t: t + " The bus came round by the mill at ten past four, and then it went up the hill."
    )
    design = Design(planted)
    assert by_name(matching(design, BOUNDS))["length match"].passed is False
    assert by_name(matching(design, BOUNDS))["sentence match"].passed is False
    assert by_name(matching(design, BOUNDS))["length match"].worst[0].item.endswith(".neutral")
    surface = by_name(floors(design, BOUNDS))["surface floor"]
    assert surface.passed is False
    assert value(surface) > 0.9


def test_a_negation_leak_is_found_and_named_though_every_pair_is_within_its_bound() -> None:
    planted = telling(peaks, lambda t: t.replace(".", ", and not before.", 1))
    found = by_name(matching(Design(planted), BOUNDS))
    lean = found["negations lean to no side"]
    assert lean.passed is False
    assert len(lean.worst) == 12
    assert all("more negations on the emotional side" in w.say for w in lean.worst)
    assert next(leak for leak in lean.words if leak.word == "not").emotional == 32
    assert by_name(floors(Design(planted), BOUNDS))["function-word floor"].passed is False


def test_an_office_register_leak_is_found_and_named() -> None:
    planted = telling(neutrals, lambda t: t + " It was noted.")
    planted = changed(planted, lambda s: replace(s, text=s.text + " It was red.", meta={}) if peaks(s) else s)
    found = by_name(matching(Design(planted), BOUNDS))
    lean = found["office words lean to no side"]
    assert lean.passed is False
    assert lean.figure == -1.0
    assert "on the neutral side" in lean.worst[0].say
    assert found["length match"].passed
    words_floor = by_name(floors(Design(planted), BOUNDS))["bag-of-words floor"]
    assert words_floor.passed is False
    assert {leak.word for leak in words_floor.words[:2]} == {"noted", "red"}


def test_a_repeated_clause_is_found_and_named() -> None:
    clause = " They went back over the bridge to the mill."
    planted = telling(lambda s: s.id in ("n.01", "d.joy.1"), lambda t: t + clause)
    runs, near = repeats(planted, BOUNDS)
    assert runs.passed is False
    assert {runs.worst[0].item, runs.worst[0].say.split()[-1]} == {"n.01", "d.joy.1"}
    assert near.passed
    runs, near = repeats(STARTER, BOUNDS)
    assert runs.passed
    assert near.passed


def test_a_near_duplicate_is_found_and_named() -> None:
    text = STARTER["n.01"].text
    planted = telling(lambda s: s.id == "n.02", lambda _: text.replace("the", "a", 1))
    assert repeats(planted, BOUNDS)[1].worst[0].say == "near duplicate of n.01"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: replace(s, text=s.text.replace(s.text.split()[-1], "elsewhere.")), "ending X differs"),
        (lambda s: replace(s, cell="by"), "has the cells"),
        (lambda s: replace(s, role="neutral", affect=False), "the emotional cells are by"),
        (lambda s: replace(s, meta=s.meta | {"check": {"answer": "perhaps"}}), "the comprehension check"),
    ],
)
def test_a_broken_quadruple_is_found_and_named(change: Callable[[Stimulus], Stimulus], said: str) -> None:
    planted = changed(STARTER, lambda s: change(s) if s.id == "x.fear.01.ax" else s)
    found = completeness(Design(planted))
    assert found.passed is False
    assert found.worst[0].item == "x.fear.01"
    assert said in found.worst[0].say
    assert completeness(Design(STARTER)).passed


def test_words_that_do_not_cancel_are_found_and_named() -> None:
    planted = telling(lambda s: s.id == "x.fear.01.ax", lambda t: t.replace(".", " again.", 1))
    found = additive(Design(planted))
    assert found.passed is False
    assert found.worst[0].item == "x.fear.01"
    assert "again" in found.worst[0].say
    assert additive(Design(STARTER)).figure == 0.5


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (" ---", "ends in a stray mark"), (" ", "begins or ends with white space"),
        ("\nThen it rained.", "line breaks"),
        (" And", "does not end in a full stop"), (" It\u2019s 5 \ufffd.", "decoded wrongly"), (" <b>x</b>.", "markup"),
        (" It\u200b rained.", "control characters"),
    ],
)  # fmt: skip
def test_stray_marks_are_found_and_named(mark: str, said: str) -> None:
    planted = telling(lambda s: s.id == "n.03", lambda t: t + mark)
    found = integrity(planted)
    assert found.passed is False
    assert {w.item for w in found.worst} == {"n.03"}
    assert any(said in w.say for w in found.worst)
    assert integrity(STARTER).passed


def test_open_groups_double_texts_and_imbalance_are_found() -> None:
    without = Battery("b", tuple(s for s in STARTER if s.id != "v.joy.family.1.neutral"))
    assert [w.item for w in integrity(without).worst] == ["v.joy.family.1"]
    assert {w.item for w in balance(without).worst} >= {"vignettes, neutral, emotion joy"}
    twice = telling(lambda s: s.id == "n.02", lambda _: STARTER["n.01"].text)
    assert [w.say for w in integrity(twice).worst] == ["has the text of n.01"]
    assert balance(load_battery("full")).passed


# floors ---------------------------------------------------------------------------------------------------------------


def planted_pairs(leak: Callable[[int, str], str], n: int = 64, seed: int = 0) -> Battery:
    """Pairs of random words in 8 emotions and 8 domains, changed by ``leak``."""
    rng = np.random.default_rng(seed)
    emotions = "joy trust fear surprise sadness disgust anger anticipation".split()
    items = []
    for i in range(n):
        text = " ".join(rng.choice(FILLER, 20)).capitalize() + "."
        for role in ("emotional", "neutral"):
            items.append(Stimulus(f"{i}.{role}", leak(i, role).replace("TEXT", text), "p", role, role == "emotional",
                                  emotions[i % 8], domain=f"d{i // 8 % 8}", group=str(i)))  # fmt: skip
    return Battery("planted", tuple(items))


def test_floors_are_at_one_half_without_a_leak_and_at_one_with_it() -> None:
    rng = np.random.default_rng(1)
    even = by_name(
        floors(Design(planted_pairs(lambda _i, _r: f"TEXT {rng.choice(FILLER)} {rng.choice(FILLER)}.")), BOUNDS)
    )
    for found in even.values():
        assert isinstance(found.figure, Estimate)
        assert found.figure.low < 0.5 or found.figure.value < 0.6, found  # held out, pure noise reads below one half
    leaking = by_name(
        floors(
            Design(planted_pairs(lambda _i, r: "TEXT It was wet." if r == "emotional" else "TEXT It was dry.")), BOUNDS
        )
    )
    assert value(leaking["bag-of-words floor"]) == 1.0
    assert leaking["bag-of-words floor"].passed is False
    assert {leak.word for leak in leaking["bag-of-words floor"].words} == {"wet", "dry"}
    assert leaking["bag-of-words floor"].words[0].emotional in (0, 64)
    assert value(leaking["surface floor"]) < 0.75


def test_the_worst_pairs_are_those_that_leak() -> None:
    planted = planted_pairs(lambda i, r: "TEXT It was wet." if r == "emotional" and i < 16 else "TEXT It was dry.")
    found = by_name(floors(Design(planted), BOUNDS))["bag-of-words floor"]
    assert {int(w.item) for w in found.worst} <= set(range(16))
    assert "only emotional: wet; only neutral: dry" in found.worst[0].say


def test_the_floor_is_that_of_the_best_reader() -> None:
    planted = planted_pairs(lambda _i, r: "TEXT Wet then dry." if r == "emotional" else "TEXT Dry then wet.")
    found = by_name(floors(Design(planted), BOUNDS))["bag-of-words floor"]  # only word pairs tell
    assert value(found) > 0.95
    assert "naive_bayes 0.5" in found.note


def test_a_leak_of_one_emotion_alone_is_no_leak_when_emotions_are_held_out() -> None:
    rng = np.random.default_rng(2)

    def leak(i: int, role: str) -> str:
        return f"TEXT {rng.choice(FILLER)} {'odd' if role == 'emotional' else 'even'}{letter(i)}."

    assert value(by_name(floors(Design(planted_pairs(leak, 128)), BOUNDS))["bag-of-words floor"]) < 0.75


def test_category_floors_see_a_topic_in_the_neutral_partners() -> None:
    names = ("category floor", "category floor of neutral partners", "category: emotional less neutral")
    topic = by_name(category(Design(planted_pairs(lambda i, _r: f"TEXT topic{letter(i)}.")), BOUNDS))
    assert value(topic[names[0]]) == value(topic[names[1]]) == 1.0
    assert topic[names[1]].passed is False
    assert topic[names[2]].passed
    planted = planted_pairs(lambda i, r: f"TEXT {'word' + letter(i) if r == 'emotional' else 'word'}.", 256)
    word = by_name(category(Design(planted), BOUNDS))
    assert value(word[names[0]]) == 1.0
    assert value(word[names[1]]) < 0.62
    assert word[names[2]].passed is False
    nothing = by_name(category(Design(planted_pairs(lambda _i, _r: "TEXT", 256)), BOUNDS))
    assert nothing[names[0]].passed


def test_held_out_naive_bayes_is_scikit_learns() -> None:
    rows = Design(STARTER).paired("emotion")
    assert not isinstance(rows, str)
    ours = held_out("naive_bayes", rows.texts, rows.y, rows.folds, 2)[:, 0]
    for fold in range(8):
        train, test = np.flatnonzero(rows.folds != fold), np.flatnonzero(rows.folds == fold)
        maker = CountVectorizer(analyzer=cast(Any, words), binary=True)
        model = MultinomialNB().fit(maker.fit_transform([rows.texts[i] for i in train]), rows.y[train])
        chance = model.predict_log_proba(maker.transform([rows.texts[i] for i in test]))
        np.testing.assert_allclose(ours[test], chance[:, 1] - chance[:, 0], atol=1e-9)
    pooled = roc_auc_score(rows.y, ours)
    assert f"pooled over folds {pooled:.3f}" in by_name(floors(Design(STARTER), BOUNDS))["bag-of-words floor"].note


def test_a_fit_in_the_span_of_the_training_rows_is_the_fit() -> None:
    x = products([s.text for s in STARTER.items[:40]], [s.text for s in STARTER.items[60:100]])
    y = np.arange(40) % 2
    seen, unseen = span(x[:30], x[30:])
    ours = LogisticRegression(C=10, tol=1e-10, max_iter=10_000).fit(seen, y[:30]).decision_function(unseen)
    direct = LogisticRegression(C=10, tol=1e-10, max_iter=10_000).fit(x[:30], y[:30]).decision_function(x[30:])
    np.testing.assert_allclose(ours, direct, atol=1e-5)


def test_properties_that_do_not_apply_say_why() -> None:
    bare = Battery("bare", tuple(s for s in STARTER if s.split == "vivid_neutral"))
    found = audit(bare)
    assert {f.verdict for f in found.findings} <= {"pass", "not applicable", "reported"}
    assert found.passed
    assert found["bag-of-words floor"].note == "0 matched pairs"
    assert found["crossed completeness"].note == "no quadruples"
    homeless = changed(STARTER, lambda s: replace(s, domain=None))
    assert category(Design(homeless), BOUNDS)[0].note == "32 matched pairs, fewer than three kinds of domain"


def wet_and_dry(n: int = 64) -> Battery:
    return planted_pairs(lambda _i, r: "TEXT It was wet." if r == "emotional" else "TEXT It was dry.", n)


def test_missing_labels_switch_no_floor_off() -> None:
    one = changed(wet_and_dry(), lambda s: replace(s, emotion=None) if s.group == "3" else s)
    found = by_name(floors(Design(one), BOUNDS))["bag-of-words floor"]
    assert found.passed is False
    assert "1 pairs without emotion left out" in found.note
    none = changed(wet_and_dry(), lambda s: replace(s, emotion=None))
    assert "domains held out" in by_name(floors(Design(none), BOUNDS))["bag-of-words floor"].note
    bare = changed(none, lambda s: replace(s, domain=None))
    found = by_name(floors(Design(bare), BOUNDS))["bag-of-words floor"]
    assert found.passed is False
    assert "groups held out" in found.note


def test_groups_with_several_items_are_paired_and_clustered() -> None:
    twice = changed(wet_and_dry(), lambda s: replace(s, group=str(int(s.group) // 2)))
    design = Design(Battery("b", tuple(s for s in twice if s.id not in {f"{i}.neutral" for i in range(0, 64, 2)})))
    assert len(design.pairs) == 64  # two emotional items share a neutral
    found = by_name(floors(design, BOUNDS))["bag-of-words floor"]
    assert isinstance(found.figure, Estimate)
    assert found.figure.n == 32
    assert found.passed is False
    (linear,) = encoded(design, lambda texts: np.array([["wet" in x, len(x)] for x in texts], dtype=float))
    assert isinstance(linear.figure, Estimate)
    assert linear.figure.n == 32


def test_emotions_that_stand_in_one_domain_are_unbalanced_and_have_no_category_floor() -> None:
    for n in (8, 3):
        domains = {e: f"d{i % n}" for i, e in enumerate(sorted({str(s.emotion) for s in wet_and_dry()}))}
        confounded = changed(wet_and_dry(), lambda s, d=domains: replace(s, domain=d[str(s.emotion)]))  # type: ignore[misc]
        assert balance(confounded).passed is False
        assert category(Design(confounded), BOUNDS)[0].note == "some emotions stand in one domain only"
        assert audit(confounded)["bag-of-words floor"].passed is False


def test_an_unpaired_battery_of_any_texts_is_audited() -> None:
    loose = changed(wet_and_dry(8), lambda s: replace(s, group=s.id, emotion=None, domain=None))
    found = audit(loose)
    assert found["integrity"].passed
    assert found["bag-of-words floor"].verdict == "not applicable"
    mute = Battery(
        "mute", (Stimulus("a", "\U0001f642.", "s", "vivid", False), Stimulus("b", "\u2026", "s", "vivid", False))
    )
    assert audit(mute)["near duplicates"].note == "no text has a word"


# quadruples -----------------------------------------------------------------------------------------------------------


def planted_quadruples(text: Callable[[int, str], tuple[str, str]]) -> Battery:
    emotions = "joy trust fear surprise sadness disgust anger anticipation".split()
    items = []
    for i in range(24):
        for cell in ("ax", "ay", "bx", "by"):
            context, ending = text(i, cell)
            on = cell in ("ax", "by")
            role, meta = "emotional" if on else "neutral", {"ending": len(context) + 1}
            items.append(
                Stimulus(f"{i}.{cell}", f"{context} {ending}", "crossed", role, on, emotions[i % 8], group=str(i),
                         cell=cell, meta=meta)
            )  # fmt: skip
    return Battery("planted", tuple(items))


def test_a_reader_of_word_products_learns_a_planted_product() -> None:
    def text(i: int, cell: str) -> tuple[str, str]:
        return (
            f"Item{i} was {'wet' if cell[0] == 'a' else 'dry'}.",
            f"Then it went {'up' if cell[1] == 'x' else 'down'}.",
        )

    found = by_name(shallow(Design(planted_quadruples(text)), None, None))
    product = found["shallow reader on crossed: context-by-ending word products"]
    assert value(product) == 1.0
    assert product.passed is False
    assert additive(Design(planted_quadruples(text))).passed


def test_a_reader_of_order_learns_a_planted_order() -> None:
    def text(_i: int, cell: str) -> tuple[str, str]:
        first = "The boat lay by the barn." if cell[0] == "a" else "The barn lay by the boat."
        return first, "The boat burned before the barn." if cell[1] == "x" else "The barn burned before the boat."

    found = by_name(shallow(Design(planted_quadruples(text)), None, None))
    assert value(found["shallow reader on crossed: order, distance and position"]) == 1.0
    assert found["shallow reader on crossed: order, distance and position"].passed is False


def test_ties_are_no_evidence_and_untied_quadruples_decide() -> None:
    quadruples = Design(planted_quadruples(lambda i, c: (f"Context {c[0]} {i}.", f"Ending {c[1]} {i}."))).crossed()
    scores = np.zeros((24, 4))
    scores[:12, 0] = 1.0  # ax, in half of the quadruples
    found = _finding("x", "interval covers 0.5", scores.ravel(), quadruples)
    assert found.passed is False
    assert found.note == "12 won, 0 lost, 12 tied"
    found = _finding("x", "interval covers 0.5", np.zeros(96), quadruples)
    assert (found.passed, found.figure) == (True, 0.5)
    assert "too little to go on" in found.note


def test_flat_cells_without_an_emotion_do_not_split_quadruples() -> None:
    bare = changed(STARTER, lambda s: replace(s, emotion=None) if s.cell in ("ay", "bx") else s)
    named = {f.name: f.said() for f in shallow(Design(STARTER), None, None)}
    assert {f.name: f.said() for f in shallow(Design(bare), None, None)} == named


def test_mentions_are_counted_from_the_last_of_the_context() -> None:
    order, first, last, *_, shared = mention_features("The boat lay by the barn.", "The barn burned, and the boat.")
    assert (order, shared) == (-1.0, 2.0)
    assert (first, last) == (1 + 1, 5 + 5)
    assert mention_features("The boat, the old boat, lay.", "It was the boat.")[1] == 2 + 3


def test_overlap_is_symmetric() -> None:
    one, other = STARTER["n.01"], replace(STARTER["n.01"], text=STARTER["n.01"].text + " Then Zebedee whistled.")
    assert jaccard(Pair(one, other)) == jaccard(Pair(other, one)) < 1


def test_quadruples_of_the_starter_are_closed_to_shallow_readers() -> None:
    same = load_battery("full").where(split="vignettes", role="keyword")  # of one kind only: nothing to learn from
    assert (
        by_name(shallow(Design(STARTER), same, None))["shallow reader on crossed: words learnt outside"].figure is None
    )
    outside = planted_pairs(lambda _i, r: "TEXT wet." if r == "emotional" else "TEXT dry.")

    def encoder(texts: Sequence[str]) -> np.ndarray:
        return np.array([[len(t), t.count(",")] for t in texts], dtype=float)

    found = shallow(Design(STARTER), outside, encoder)
    assert all(f.passed is not False for f in found)
    assert "reader on crossed: sentence encoder and perceptron" in by_name(found)


# reports and inputs ---------------------------------------------------------------------------------------------------


def test_lexicons_and_encoders_are_reported() -> None:
    wet = planted_pairs(lambda _i, r: "TEXT wet." if r == "emotional" else "TEXT dry.")
    _, mine = lexicons(Design(wet), {"mine": {"wet": 2.0, "dry": 1.0, "cup": 0.5}})
    assert mine.passed is None
    assert value(mine) > 0
    (found,) = encoded(Design(wet), lambda texts: np.array([["wet" in t, "cup" in t] for t in texts], dtype=float))
    assert value(found) > 0.99
    assert found.verdict == "reported"
    scores = vader(["A wonderful day.", "A horrible day."])
    assert isinstance(scores, str) or scores[0] > scores[1]


def test_an_audit_is_a_table_with_a_verdict_and_fixes() -> None:
    found = audit(STARTER, bounds=Bounds().with_(words=0.01))
    assert not found.passed
    assert found["bag-of-words floor"].verdict == "FAIL"
    frame = found.frame()
    assert list(frame.columns) == ["property", "figure", "low", "high", "bound", "verdict", "note"]
    assert set(found.fixes()["property"]) >= {"bag-of-words floor"}
    assert "FAIL" in repr(found)
    assert "<strong>failed</strong>" in found._repr_html_()
    with pytest.raises(BatteryError, match="no property 'smell'; it has integrity, balance"):
        _ = found["smell"]


def test_bounds_lexicons_and_encoders_of_a_user(tmp_path: Path) -> None:
    assert changed_bounds(Bounds(), ["words=0.8", "run=8"]) == Bounds(words=0.8, run=8)
    with pytest.raises(BatteryError, match="There is no bound 'wrods'; there are words, function_words"):
        changed_bounds(Bounds(), ["wrods=1"])
    with pytest.raises(BatteryError, match="'words' is not NAME=VALUE"):
        changed_bounds(Bounds(), ["words"])
    path = tmp_path / "mine.tsv"
    path.write_text("word\tscore\nCup\t0.5\nlamp\t-1\n")
    assert read_lexicon(path) == {"cup": 0.5, "lamp": -1.0}
    path.write_text(",Word,V.Mean.Sum\n1,cup,6.26\n2,lamp,5.3\n")
    assert read_lexicon(path) == {"cup": 6.26, "lamp": 5.3}
    path.write_text("abandon\tfear\t1\nabandon\tjoy\t0\n")
    with pytest.raises(BatteryError, match="gives 'abandon' two scores"):
        read_lexicon(path)
    path.write_text("nothing here")
    with pytest.raises(BatteryError, match="holds no line with a word and a number"):
        read_lexicon(path)
    with pytest.raises(BatteryError, match="--encoder some/model needs sentence_transformers: pip install"):
        find_encoder("some/model")


def test_closed_lists_and_sentences() -> None:
    assert sentences('He said "No." Then he left. Why?') == ['He said "No."', "Then he left.", "Why?"]
    assert count("She didn't, he did not, nobody cannot.", NEGATIONS) == 4
    assert emotion_words("It happened to the scarecrow. Dolores wanted the gladioli; they grieved with delight.") == [
        "grieved", "delight",
    ]  # fmt: skip
    assert emotion_words("She pitied him, envied her, and adored it; furious, loving, hopeful.") == [
        "pitied", "envied", "adored", "furious", "loving", "hopeful",
    ]  # fmt: skip


def test_leaks_are_ranked_by_how_sure_they_are() -> None:
    found = leaks(
        Design(
            planted_pairs(lambda i, r: "TEXT wet" * (r == "emotional") + " mud" * (i < 4) * (r == "neutral") + ".")
        ).pairs
    )
    assert [leak.word for leak in found][:2] == ["wet", "mud"] or found[0].word == "wet"


# our batteries --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def core() -> Audit:
    return audit(load_battery("core"))


def test_our_battery_passes_its_own_audit_within_a_minute(core: Audit) -> None:
    failed = {f.name: f.said() for f in core.findings if f.passed is False}
    assert not failed
    assert core.seconds < 60
