"""config.json: what it says, and giving it back with --config."""

import json
from pathlib import Path

import pytest
from conftest import TRAIN, call, load, log_lines, refusal, same
from hypothesis import given
from hypothesis import strategies as st

import train
from training.config_file import NOT_KEPT, read_config
from util.errors import UsageError

ONE = (*TRAIN, "--num_epochs", 1, "--learning_rate", 0.001, "--unknown", "-1", "?")
RUN = Path("runs/instances-chain")


def test_a_run_is_repeated_from_its_config(workdir, capsys):
    """The same weights; flags on the command line count more."""
    call(train, *ONE, "--normalise_tags")
    config = json.loads((RUN / "config.json").read_text())
    flags = config["flags"]
    assert flags.keys() == vars(train.get_args_parser().parse_args([])).keys() - NOT_KEPT
    assert (flags["learning_rate"], flags["unknown"], flags["seed"]) == (0.001, ["-1", "?"], 0)
    assert flags["annotations"] is flags["output_dir"] is None
    assert config["chosen"]["annotations"] == "data/annotations/instances.json"
    assert config["chosen"]["output_dir"] == str(RUN)
    assert config["data"]["labels"] == 5
    assert config["versions"].keys() >= {"python", "torch", "numpy"}
    given = ("--config", RUN / "config.json")
    capsys.readouterr()
    call(train, *given)
    assert f"{RUN} is finished" in capsys.readouterr().err
    call(train, *given, "--output_dir", "again")
    assert same(load("again/best.pt")["weights"], load(RUN / "best.pt")["weights"])
    assert log_lines(Path("again")) == log_lines(RUN)
    again = json.loads(Path("again/config.json").read_text())["flags"]
    assert again == flags | {"output_dir": "again"}
    before = Path("again/config.json").read_bytes()
    more = (*given, "--output_dir", "again", "--num_epochs", 2)
    assert "--num_epochs was 1, is 2" in refusal(train, *more)
    assert Path("again/config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is no config.json of train.py"),
        ("[]", "Expected `object`, got `array`"),
        ("{}", "missing required field `flags`"),
        ('{"flags": {}, "x": 1}', "unknown field `x`"),
        ('{"flags": {}, "program": "y"}', "is of 'y', not of HybridNet train.py"),
        ('{"flags": {"seed": 1, "seed": 2}}', "has 'seed' twice"),
        (
            '{"flags": {"lr": 1}}',
            "the flag 'lr', which train.py has not: did you mean learning_rate?",
        ),
        ('{"flags": {"zzz": 1}}', "which train.py has not: delete it"),
        ('{"flags": {"config": "a"}}', "the flag 'config'"),
        ('{"flags": {"learning_rate": 0}}', "learning_rate: must be a number above 0, not '0'"),
        ('{"flags": {"learning_rate": NaN}}', "not a finite number"),
        ('{"flags": {"learning_rate": 1e999}}', "not a finite number"),
        ('{"flags": {"seed": true}}', "seed must be a text or a number, not True"),
        ('{"flags": {"seed": 1.5}}', "must be a whole number"),
        ('{"flags": {"seed": [1]}}', "seed must be one value"),
        ('{"flags": {"seed": {"a": 1}}}', "seed must be a text or a number"),
        ('{"flags": {"pretrained": "yes"}}', "pretrained must be true or false, not 'yes'"),
        ('{"flags": {"unknown": "?"}}', "unknown must be a list"),
        ('{"flags": {"unknown": []}}', "unknown must be a list"),
        ('{"flags": {"decoder": "x"}}', "invalid choice: 'x'"),
        ('{"flags": {"arch": "x"}}', "x"),
        ('{"flags": {"image_path": "a\\u0000b"}}', "a character that no file name has"),
        ("[" * 10**5, "is no config.json"),
    ],
)
def test_what_is_refused(tmp_path, content, sentence):
    (tmp_path / "c.json").write_text(content)
    said = refusal(train, "--config", tmp_path / "c.json")
    assert sentence in said
    assert "c.json" in said


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(st.data())
def test_any_value_is_a_flag_of_the_command_line_or_an_error(tmp_path_factory, data):
    parser = train.get_args_parser()
    name = data.draw(st.sampled_from(sorted(vars(parser.parse_args([])).keys() - NOT_KEPT)))
    value = data.draw(JSON)
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps({"flags": {name: value}}), encoding="utf-8")
    try:
        found = read_config(path, parser)
    except UsageError:
        return
    if value is None or value is False:
        assert found == ({} if value is None else {name: False})
        return
    words = [
        f"--{name}",
        *([] if value is True else map(str, value if isinstance(value, list) else [value])),
    ]
    if not any(word.startswith("-") for word in words[1:]):
        assert vars(parser.parse_args(words))[name] == found[name]
