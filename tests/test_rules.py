"""--rules and --find_rules of the scripts, on the tiny data set."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import EVALUATE, LABEL_SETS, RANKED, call, coco, refusal, write_json

import annotate
import evaluate
import sample
from evaluation.analysis import label_issues
from evaluation.kept_rules import breaking_labels, rule_results
from inference.predictions import DECISIONS
from inference.predictor import load
from inference.rules import LabelRules
from labels.rules import parse_rules
from util.errors import UsageError

RULES = "apple x zebra\ncat -> person\none of: dog, person, zebra  # exactly one\n"


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.txt"
    path.write_text(RULES)
    return path


def keeps(labels: list[str]) -> bool:
    """RULES, said once more."""
    on = {*labels}
    return (
        not on >= {"apple", "zebra"}
        and ("cat" not in on or "person" in on)
        and len(on & {"dog", "person", "zebra"}) == 1
    )


def test_evaluate_with_rules(trained, rules, monkeypatch, capsys):
    """Nothing predicted breaks one; annotations that do are named; other results stay."""
    monkeypatch.chdir(trained.folder)
    call(evaluate, *EVALUATE, "--rules", rules)
    printed = capsys.readouterr().out
    assert "3 rules, which no set but top3 can break; 5 of 11 annotated sets keep all" in printed
    assert "the annotations of 1 image break apple x zebra: img_10.jpg" in printed
    folder = trained.output / "all-rules"
    found = json.loads((folder / "metrics.json").read_text())
    labelled = [labels for labels in LABEL_SETS if labels]
    assert found["rules"]["images_kept"] == sum(map(keeps, labelled)) == 5
    broken = {row["rule"]: row["images"] for row in found["rules"]["broken"]}
    assert broken["cat -> person"] == ["img_06.jpg", "img_09.jpg"]
    with np.load(folder / "predictions.npz") as p:
        for name in ("best_sets", "f1_sets"):
            assert all(keeps([RANKED[i] for i in row.nonzero()[0]]) for row in p[name])
        given = p["set_nll"] + p["log_kept"]
        kept = [keeps(labels) for labels in labelled]
        assert found["rules"]["set_nll"] == pytest.approx(given[kept].mean(), rel=1e-5)
        probability = np.exp(p["log_kept"])
        expected = [np.median(probability), probability.min()]
        assert found["rules"]["probability_kept"] == pytest.approx(expected, rel=1e-3)
    assert found["rules"]["set_nll"] < found["rules"]["set_nll_without"]

    call(evaluate, *EVALUATE)
    capsys.readouterr()
    plain = json.loads((trained.output / "all/metrics.json").read_text())
    assert plain["set_nll"] == found["set_nll"], "of the model alone"
    assert "rules" not in plain
    paths = [str(trained.output / name / "metrics.json") for name in ("all", "all-rules")]
    call(evaluate, "--compare", *paths, "--json")
    rows = json.loads(capsys.readouterr().out)["metrics"]
    values = {row["metric"]: row["values"] for row in rows}
    for rule in DECISIONS:
        both = [r["predicted_sets"][rule]["OF1"] for r in (plain, found)]
        assert values[f"{rule} OF1"] == both


def test_other_rules_get_another_folder(trained, rules, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained.folder)
    call(evaluate, *EVALUATE, "--rules", rules, "--limit", 2)
    first = trained.output / "all-first-2-rules/metrics.json"
    before = first.read_bytes()
    rules.write_text("cat x dog\n")
    call(evaluate, *EVALUATE, "--rules", rules, "--limit", 2)
    assert first.read_bytes() == before
    found = json.loads((trained.output / "all-first-2-rules-2/metrics.json").read_text())
    assert found["given_rules"] == ["cat x dog"]


def test_rules_that_evaluate_refuses(trained, rules, monkeypatch):
    monkeypatch.chdir(trained.folder)
    rules.write_text("cat -> dog\ncat -> prson\n")
    why = refusal(evaluate, *EVALUATE, "--rules", rules)
    assert (
        why == f"{rules}, line 2: the model does not know the label 'prson'; did you mean 'person'?"
    )
    rules.write_text("one of: cat dog\ncat -> dog\ndog -> cat\nperson -> zebra\n")
    why = refusal(evaluate, *EVALUATE, "--rules", rules)
    named = "`one of: cat, dog` (line 1) and `cat -> dog` (line 2) and `dog -> cat` (line 3)"
    assert why == f"no label set can keep the rules {named}: change or leave out one of them"
    rules.write_text(RULES)
    why = refusal(evaluate, *EVALUATE, "--rules", rules, "--reveal", 5)
    assert re.match(r"img_\d\d\.jpg: the rules? .* cannot be kept on an image with", why)
    why = refusal(evaluate, "--checkpoint", "x", "--find_rules", "--limit", 3)
    assert why == "nothing is evaluated: leave out --limit"


def test_found_rules_hold_for_all_annotations(trained, tmp_path, capsys, monkeypatch):
    """On stdout and without a run of the model; what is printed is a rules file."""
    monkeypatch.chdir(trained.folder)
    monkeypatch.setattr(evaluate, "restore", None)
    label_sets = [("cat", "person")] * 40 + [("person",)] * 40 + [("dog",)] * 80
    many = write_json(coco(label_sets), tmp_path / "many.json")
    flags = ("--image_path", trained.images, "--annotations", many)
    call(evaluate, "--checkpoint", trained.output, "--find_rules", *flags)
    printed = capsys.readouterr().out
    found = parse_rules(printed, RANKED, "stdout")
    assert [rule.text for rule in found] == ["one of: person, dog", "cat -> person"]
    sets = np.array([[label in labels for label in RANKED] for labels in label_sets])
    assert LabelRules(found, len(RANKED)).keeps(sets).all()


def test_annotations_that_break_rules_are_the_first_issues():
    rules = LabelRules(parse_rules("cat -> person", RANKED, ""), len(RANKED))
    targets = np.zeros((4, 5), bool)
    targets[1, 1] = targets[2, :2] = True
    flip_logit = np.full((4, 5), -5.0)
    flip_logit[0, 3], flip_logit[1, 0], flip_logit[1, 1], flip_logit[1, 2] = 2, -4, -9, 1
    first, second, *_ = label_issues(flip_logit, targets, 5, rules)
    assert first[:3] == (1, 0, "missing"), "the cat without person; person is more likely wrong"
    assert second[:3] == (0, 3, "missing")
    assert breaking_labels(flip_logit, targets, rules).sum() == 1


def test_annotations_that_break_rules_only_together():
    """Its unknown label may be there or not: each rule can be kept, both cannot."""
    rules = LabelRules(parse_rules("cat -> dog\ndog -> person", RANKED, ""), len(RANKED))
    rank = {label: RANKED.index(label) for label in ("cat", "dog", "person")}
    targets, known = np.zeros((2, 5), bool), np.ones((2, 5), bool)
    targets[1, rank["cat"]], known[1, rank["dog"]] = True, False
    doubts = np.full((2, 5), -5.0)
    doubts[1, rank["person"]] = -1
    p = SimpleNamespace(targets=targets, known=known, set_nll=np.ones(2), log_kept=-np.ones(2))
    found = rule_results(p, rules, ["a.jpg", "b.jpg"])
    assert found["images_kept"] == 1
    assert found["broken"][-1] == {"rule": "the rules together", "images": ["b.jpg"]}
    marked = breaking_labels(doubts, targets, rules, known)
    assert [*zip(*marked.nonzero(), strict=True)] == [(1, rank["person"])]


def test_predictions_keep_rules(trained, rules):
    model, image = load(trained.output, rules=rules), trained.images / "img_02.jpg"
    encoding = model.encode(image)
    for decide in DECISIONS:
        result = model.describe(encoding, decide=decide, num_sets=40, known=["cat"])
        assert keeps(result["predicted"])
        sets = result["most_probable_sets"]
        assert all(keeps(found["labels"]) for found in sets)
        assert result["rules"] == 3
        assert result["effective_sample_size"] is None, "all sets were listed: exact"
        assert sum(found["probability"] for found in sets) == pytest.approx(1, abs=1e-4)
        for label in RANKED:
            total = sum(found["probability"] for found in sets if label in found["labels"])
            assert result["labels"][label] == pytest.approx(total, abs=1e-4)
    assert keeps(model.predict(image)["predicted"])


def test_sample_with_rules(trained, rules, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ("--checkpoint", trained.output, "--output", "out", "--num_slides", 0)
    call(sample, trained.images, *flags, "--rules", rules)
    assert "given the rules; exact" in capsys.readouterr().out
    with open("out/predictions.csv", newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert all(keeps(row["labels"].split("|")) for row in rows)
    promise = ("--rules", rules, "--decide", "recall=0.5", "--output", "other")
    with pytest.raises(UsageError):
        call(sample, trained.images, *flags, *promise)
    assert not Path("other").exists(), "nothing that stops the corrected command"
    why = refusal(sample, trained.images, *flags)
    assert "has predictions with --rules apple x zebra, cat -> person, one of" in why


def test_known_labels_that_break_rules(trained, rules, tmp_path):
    flags = ("--checkpoint", trained.output, "--output", tmp_path / "out", "--rules", rules)
    why = refusal(sample, trained.images, *flags, "--known", "dog", "--known", "cat")
    assert why == "the rules together cannot be kept on an image with cat, dog"
    why = refusal(sample, trained.images, *flags, "--known", "apple", "--known", "zebra")
    assert why == "the rule `apple x zebra` cannot be kept on an image with apple, zebra"


def test_rules_of_annotate_need_a_network(trained, rules):
    assert "--rules needs --checkpoint" in refusal(annotate, trained.images, "--rules", rules)
