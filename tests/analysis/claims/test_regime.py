"""Second judgements: where clipping acts, by a rule that sees no score, and by the area under the curve."""

import pytest

from analysis.claims.area import area_claim, judge_areas
from analysis.claims.claims import CLAIMS
from analysis.claims.judge import BATCHES, claims_json, claims_table, judge_claims, worlds_said
from analysis.claims.mechanism import MECHANISMS, mechanism_in
from analysis.claims.regime import (
    CANDIDATES,
    LIVE,
    clipped_share,
    judge_where_live,
    live_settings_of,
    that_counts,
)
from analysis.claims.second import second_table
from analysis.draw.table import DASH
from analysis.report.captions import claims_words
from analysis.sweeps.effects import area_score
from analysis.sweeps.kept import SWEEPS, KeptSweep, value_order, world_of

BY_ID = {claim.id: claim for claim in CLAIMS}
SOURCE = "kept results"


def run(method, seed, clipped, score, rest=None):
    curves = {"clip/low_fraction": [clipped / 2] * 4, "clip/high_fraction": [clipped / 2] * 4}
    scores = {"chain6": {"0": 0.4, "4": score, "8": score + 0.01 * seed * (method == "gppo")}}
    return {"arm": {"clip_method": method, **(rest or {})}, "seed": seed, "scores": scores, "curves": curves}


def stability(cells, methods=("clip_higher", "gppo"), seeds=(0, 1, 2)):
    """cells: (learning rate, mini-batch) -> share of clip_higher's tokens that are clipped."""
    runs = [
        run(m, s, c, 0.5 + 0.3 * (m == "gppo"), {"rl.learning_rate": lr, "rl.mini_batch_prompts": mb})
        for (lr, mb), c in cells.items()
        for m in methods
        for s in seeds
    ]
    return KeptSweep({"sweep": "stability"}, runs)


def chosen(cells, claim="C7", **more):
    return that_counts(live_settings_of(BY_ID[claim], {"stability": (stability(cells, **more), SOURCE)}))


def test_the_lowest_learning_rate_counts_whose_reference_arm_clips_one_token_in_a_hundred():
    cells = {(1e-4, 2): 0.009, (2e-4, 8): 0.002, (2e-4, 2): 0.011, (4e-4, 2): 0.03}
    one = chosen(cells)
    assert one.words == "learning_rate=0.0002, mini_batch_prompts=2" and one.clipped == pytest.approx(0.011)
    assert {r["arm"]["rl.learning_rate"] for r in one.kept.runs} == {2e-4}


def test_exactly_the_bound_is_live_and_below_it_nothing_is():
    assert chosen({(1e-4, 2): LIVE}) is not None
    assert chosen({(1e-4, 2): 0.0099}) is None


def test_of_one_learning_rate_most_seeds_count_then_the_least_clipped():
    few, many = stability({(2e-4, 2): 0.011}), stability({(2e-4, 4): 0.05, (2e-4, 8): 0.04}, seeds=range(5))
    both = KeptSweep(few.about, [*few.runs, *many.runs])
    one = that_counts(live_settings_of(BY_ID["C7"], {"stability": (both, SOURCE)}))
    assert (one.seeds, one.clipped) == (5, pytest.approx(0.04))


def test_the_rule_sees_no_score():
    cells = {(1e-4, 2): 0.012, (4e-4, 2): 0.03}
    before, kept = chosen(cells), stability(cells)
    for r in kept.runs:
        r["scores"] = {"chain6": {"0": 0.0, "4": 0.0, "8": 1.0 / (1 + r["seed"])}}
    after = that_counts(live_settings_of(BY_ID["C7"], {"stability": (kept, SOURCE)}))
    assert before.words == after.words


def test_only_the_arms_that_the_claim_calls_worse_are_the_reference():
    runs = [run("gppo", 0, 0.5, 0.5), run("clip_higher", 0, 0.004, 0.5)]
    assert clipped_share(BY_ID["C7"], runs) == pytest.approx(0.004)
    assert clipped_share(BY_ID["C10"], runs) == pytest.approx(0.252)  # it compares none: all arms
    assert clipped_share(BY_ID["C7"], runs[:1]) is None


def test_a_method_with_other_parameters_judges_no_claim():
    rest = {"rl.learning_rate": 4e-4}
    runs = [
        run(m, s, 0.02, 0.5, {**rest, "clip_method.dual_clip": dual})
        for m in ("clip_higher", "gppo", "gppo_low_only")
        for s in (0, 1)
        for dual in (None, 1.28)
    ]
    (one,) = live_settings_of(BY_ID["C7"], {"collapse": (KeptSweep({"sweep": "collapse"}, runs), SOURCE)})
    arms = {(r["arm"]["clip_method"], r["arm"]["clip_method.dual_clip"]) for r in one.kept.runs}
    assert arms == {("clip_higher", None), ("gppo", None)}
    assert one.values["rl.mini_batch_prompts"] == 4  # neither swept nor in the file: the small scale's own


def test_a_live_setting_gets_a_verdict_of_its_own_and_the_first_one_stays():
    default = KeptSweep(
        {"sweep": "figure2"},
        [run(m, s, 0.001, 0.5) for m in ("clip_higher", "cispo", "gppo") for s in range(5)],
    )
    live = stability({(4e-4, 2): 0.02}, methods=("clip_higher", "cispo", "gppo"), seeds=range(5))
    alone = {one.claim.id: one for one in judge_claims({"figure2": (default, SOURCE)})}
    both = {
        one.claim.id: one
        for one in judge_claims({"figure2": (default, SOURCE), "stability": (live, SOURCE)})
        if one.claim.sweep == "figure2"
    }
    assert both["C7"].live.verdict.verdict == "supported"
    assert both["C7"].live.verdict.estimate == pytest.approx(0.32)
    assert both["C7"].live.default == pytest.approx(0.001) and both["C7"].live.command == ""
    assert both["C7"].verdict.estimate == alone["C7"].verdict.estimate != both["C7"].live.verdict.estimate
    assert "sweep=clip_live" in alone["C7"].live.command and alone["C7"].live.verdict is None


EMBEDDED, REAL = "embedded world, tiny model", "klear_math, Qwen/Qwen3-0.6B"


@pytest.mark.parametrize(
    "own, live, said",
    [
        (None, None, "the embedded worlds, tiny models"),
        (EMBEDDED, None, "the embedded worlds, tiny models"),
        (REAL, EMBEDDED, "klear_math, Qwen/Qwen3-0.6B"),
        (EMBEDDED, REAL, "the embedded worlds, tiny models"),
        (REAL, REAL, "klear_math, Qwen/Qwen3-0.6B"),
        ([EMBEDDED, REAL], EMBEDDED, "the embedded worlds, tiny models; klear_math, Qwen/Qwen3-0.6B"),
    ],
)
def test_a_second_judgement_is_of_the_world_of_the_first_and_both_name_it(own, live, said):
    runs = [run(m, s, 0.001, 0.5) for m in ("clip_higher", "gppo") for s in range(5)]
    default = KeptSweep({"sweep": "figure2", **({"world": own} if own else {})}, runs)
    clipping = stability({(4e-4, 2): 0.02})
    clipping.about.update({"world": live} if live else {})
    entries = claims_json(judge_claims({"figure2": (default, SOURCE), "stability": (clipping, SOURCE)}))
    (c7,) = [entry for entry in entries if entry["id"] == "C7"]
    assert (c7["live"]["verdict"] is not None) == ((own or EMBEDDED) == (live or EMBEDDED))
    assert c7["world"] == (own if isinstance(own, str) else world_of(default))
    assert c7["live"]["world"] == (c7["world"] if c7["live"]["verdict"] else None)
    alone = [c7, next(entry for entry in entries if entry["id"] == "C20")]
    assert claims_words(alone)["worlds"] == said and claims_table(alone).caption.endswith(f" World: {said}.")


def test_worlds_are_named_with_the_claims_that_are_about_the_rarer_ones():
    default = [run(m, s, 0.001, 0.5) for m in ("clip_higher", "cispo", "gppo") for s in range(5)]
    sweeps = {"figure2": (KeptSweep({"sweep": "figure2"}, default), SOURCE)}
    entries = claims_json(judge_claims(sweeps))
    judged = [entry["id"] for entry in entries if entry["world"]]
    about = [{**entry, "world": REAL if entry["id"] == "C7" else entry["world"]} for entry in entries]
    assert len(judged) > 2 and worlds_said(about) == f"the embedded worlds, tiny models (C7: {REAL})"
    assert worlds_said(claims_json(judge_claims({}))) == ""
    assert claims_words(claims_json(judge_claims({})))["worlds"] == ""


def test_every_candidate_is_a_sweep_whose_last_one_varies_the_claims_arms():
    for claim_id, sweeps in CANDIDATES.items():
        assert all((SWEEPS / f"{sweep}.yaml").exists() for sweep in sweeps), claim_id
        order = value_order(sweeps[-1])
        for side in ("plus", "minus"):
            for key, values in getattr(BY_ID[claim_id].effect, "keywords", {}).get(side, {}).items():
                assert set(values) <= set(order[key]), (claim_id, key)


def test_the_claims_text_and_table_show_both_verdicts_and_where_there_is_none_the_command():
    default = KeptSweep(
        {"sweep": "figure2"},
        [run(m, s, 0.001, 0.5) for m in ("clip_higher", "cispo", "gppo") for s in range(5)],
    )
    live = stability({(4e-4, 2): 0.02}, methods=("clip_higher", "gppo"), seeds=range(5))
    sweeps = {"figure2": (default, SOURCE), "stability": (live, SOURCE)}
    entries = claims_json(judge_claims(sweeps))
    cells = {row[0]: row for row in claims_table(entries).rows}
    assert "; where clipping acts +0.320 [" in cells["C7"][3] and cells["C7"][3].endswith(", supported")
    said = claims_words(entries)["said"]
    assert said.startswith("At the default: ") and "Where clipping acts, of 14 claims about clip methods: " in said
    entry = next(entry for entry in entries if entry["id"] == "C8")
    (row,) = claims_table([{**entry, "verdict": "inconclusive", "p_value": None}]).rows
    assert row[6] == DASH  # seeds that agree to the digit don't tell how many would settle it
    in_batches = claims_words(claims_json(judge_claims({**sweeps, "figure2": (default, BATCHES)})))
    assert in_batches["sources"] == {BATCHES: "figure2"} and in_batches["links"]["figure2"] == "#sweep_figure2"
    rows = {row[0]: row for row in second_table(entries).rows}
    assert rows["C7"][2] == "clipped tokens 0.10%" and rows["C7"][4] == "2.00%"
    assert rows["C7"][5] == "stability: learning_rate=0.0004, mini_batch_prompts=2"
    assert rows["C8"][5] == "python -m klear_lab.run sweep=clip_live launcher=joblib -m"
    assert "C11" not in rows and "C20" not in rows


def test_nothing_at_hand_is_no_judgement_and_a_command_for_each():
    found = judge_where_live({})
    assert {*found} == {*CANDIDATES} and all(one.verdict is None and one.command for one in found.values())
    assert judge_areas({}) == {}


def test_the_area_by_hand_and_none_without_evaluations_in_between():
    # Trapezoids of 0.4 to 0.6 over 2 steps and of 0.6 to 0.9 over 8, by 10 steps; the other benchmark is flat.
    scores = {"a": {"0": 0.4, "2": 0.6, "10": 0.9}, "b": {"0": 0.1, "2": 0.1, "10": 0.1}}
    assert area_score({"scores": scores}) == pytest.approx(((0.5 * 2 + 0.75 * 8) / 10 + 0.1) / 2)
    assert area_score({"scores": {"a": {"0": 0.4, "10": 0.9}}}) is None
    assert area_score({"scores": {}}) is None


def test_claims_about_final_scores_have_an_area_with_the_same_arms_and_others_have_none():
    by_area = area_claim(BY_ID["C7"])
    assert by_area.effect.keywords["plus"] == BY_ID["C7"].effect.keywords["plus"]
    assert by_area.margin == BY_ID["C7"].margin == 0.03
    assert area_claim(BY_ID["C10"]) is None and area_claim(BY_ID["C19"]) is None


def truncated(method, seed, share):
    found = run(method, seed, 0.001, 0.5)
    return {**found, "curves": {**found["curves"], "rollout/truncated_fraction": [share, share]}}


def test_claims_about_rl_that_are_not_about_clipping_say_how_much_of_their_mechanism_acts():
    known = {claim.id for claim in CLAIMS}
    assert {*MECHANISMS} <= known and not {*MECHANISMS} & {*CANDIDATES}
    rungs = [
        {**truncated("grpo", seed, share), "arm": {"ladder": rung}}
        for rung, share in (("dapo_0_grpo", 0.02), ("dapo_1_overlong_filtering", 0.5))
        for seed in range(3)
    ]
    kept = KeptSweep({"sweep": "dapo"}, rungs)
    assert mechanism_in(BY_ID["D1"], kept) == {"words": "truncated responses", "share": pytest.approx(0.02)}
    assert mechanism_in(BY_ID["D3"], kept)["share"] is None and mechanism_in(BY_ID["C21"], kept) is None
    rows = {row[0]: row for row in second_table(claims_json(judge_claims({"dapo": (kept, SOURCE)}))).rows}
    assert rows["D1"][2] == "truncated responses 2.00%" and rows["D3"][2] == DASH
