"""Jacobian lenses that are fitted: exact where that is known, resumed as in one go, refused where they cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from tiny import byte_tokenizer, tiny  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import stratoscope  # noqa: E402
from stratoscope.doors.commands.fit_lens import _by_name  # noqa: E402
from stratoscope.errors import CaptureError, InputError, UsageError  # noqa: E402
from stratoscope.model import sites as s  # noqa: E402
from stratoscope.model.from_object import given_model  # noqa: E402
from stratoscope.model.sites import RESIDUAL_AXES, Site  # noqa: E402
from stratoscope.probe.lens import means  # noqa: E402
from stratoscope.probe.lens.jacobian import Jacobians  # noqa: E402
from stratoscope.recorder.lens.fitted import FittedLens, open_lens  # noqa: E402
from stratoscope.trace.info.facts import info_text  # noqa: E402
from stratoscope.trace.lens_file import MOVED, READ, WRITE, read_lens_file  # noqa: E402

TEXTS = [f"{word} is a word of letters" for word in ("river", "clock", "fox", "bread")]
OTHERS = [TEXTS[3], "stone is a word of letters"]


def fitted(out: Path, model: Any, texts: Any = TEXTS, **options: Any) -> dict[str, Any]:
    return stratoscope.fit_lens(model, texts, out, **{"max_tokens": 20, "tokenizer": byte_tokenizer(), **options})


def lens_of(path: Path, model: Any) -> FittedLens:
    loaded = given_model(model, byte_tokenizer())
    return open_lens(path, weights_sha256=loaded.identity["weights_sha256"], d_model=32, depths=4)


def matrix(lens: FittedLens, depth: int, part: int = 0) -> np.ndarray:
    """What `apply` multiplies with, [to, from]."""
    return lens.apply(part, depth, torch.eye(32)).T.double().numpy()


# --- truth ----------------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """x + A x C' in every block, C a mean over some tokens; its Jacobians are known in closed form."""

    def __init__(self, tokens: Tensor, layers: int = 2, width: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.width = tokens, width
        self.embed = nn.Embedding(40, width).double()
        self.blocks = nn.ModuleList(nn.Linear(width, width, bias=False).double() for _ in range(layers))
        for block in self.blocks:
            block.register_forward_hook(lambda module, given, output: given[0] + self._mixed(output))

    def _mixed(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        return self.tokens[:length, :length] @ x

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> Any:
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x)
        return SimpleNamespace(logits=x)

    def jacobians(self, ids: np.ndarray) -> Jacobians:
        def site(layer: int, side: Any) -> Site:
            return Site(layer, s.BLOCK_IN, f"blocks.{layer}", side, 0 if side == "input" else None, RESIDUAL_AXES)

        layers = [
            SimpleNamespace(block_in=site(layer, "input"), block_out=site(layer, "output"))
            for layer in range(len(self.blocks))
        ]
        return Jacobians(self, SimpleNamespace(layers=layers, d_model=self.width))  # type: ignore[arg-type]


def of_all(jacobians: Jacobians, ids: np.ndarray, directions: Tensor) -> Tensor:
    found: dict[int, Tensor] = {}
    jacobians.run(ids, directions, lambda which, rows: found.__setitem__(which.start, rows))
    return torch.cat([found[start] for start in sorted(found)], 1)


def test_of_a_linear_model_it_is_exact() -> None:
    length, width = 24, 5
    causal = torch.tril(torch.ones(length, length)).double() / torch.arange(1, length + 1)[:, None]
    model, ids = Linear(causal), np.arange(length)
    found = of_all(model.jacobians(ids), ids, torch.eye(width))
    steps = [np.eye(length * width) + np.kron(causal, block.weight.detach()) for block in model.blocks]
    for depth, whole in enumerate((steps[1] @ steps[0], steps[1])):
        blocks = whole.reshape(length, width, length, width)[16:-1, :, 16:-1]
        np.testing.assert_allclose(found[depth], blocks.sum(0).mean(1), rtol=1e-12, atol=1e-14)


def test_a_model_that_looks_ahead_is_refused() -> None:
    ids = np.arange(24)
    Linear(torch.tril(torch.ones(24, 24)).double()).jacobians(ids).refuse_looking_ahead(ids)
    with pytest.raises(CaptureError, match="depends on the tokens behind it"):
        Linear(torch.ones(24, 24).double() / 24).jacobians(ids).refuse_looking_ahead(ids)


def reference(model: Any, blocks: str, texts: list[str]) -> np.ndarray:
    """The definition, term by term, in float64, with autograd and hooks of torch alone: [depth, to, from]."""
    model = model.double()
    model.set_experts_implementation("eager")  # the others have no float64
    total = np.zeros((3, 32, 32))
    for text in texts:
        ids = torch.tensor([byte_tokenizer()(text)["input_ids"][:20]])
        streams: list[Tensor] = []

        def keep(module: nn.Module, given: Any, named: Any, streams: list[Tensor] = streams) -> Any:
            x = given[0] if given else named["hidden_states"]
            streams.append(x.detach().requires_grad_() if not streams else x)
            return ((streams[-1], *given[1:]), named) if given else (given, {**named, "hidden_states": streams[-1]})

        layers = model.get_submodule(blocks)
        hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in layers]
        seen: list[Any] = []
        hooks.append(layers[-1].register_forward_hook(lambda module, given, output, seen=seen: seen.append(output)))
        with torch.enable_grad():
            model(ids, use_cache=False)
        end = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
        for hook in hooks:
            hook.remove()
        counted = range(16, ids.shape[1] - 1)
        for target in counted:
            for row in range(32):
                gradients = torch.autograd.grad(end[0, target, row], streams, retain_graph=True)
                for depth, gradient in enumerate(gradients):
                    sources = [source for source in counted if source <= target]
                    total[depth, row] += gradient[0, sources].sum(0).numpy() / len(counted) / len(texts)
    return total


@pytest.mark.parametrize("name", ["Llama", "Gemma2", "GPTNeoX", "Mixtral", "GPT2", "Jamba"])
def test_it_is_the_mean_of_autograds_jacobians(name: str, tmp_path: Path) -> None:
    from tiny import ALL_FAMILIES

    model, texts = tiny(name, torch.float64 if name == "Llama" else torch.float32), TEXTS[:2]
    fitted(tmp_path / "a.lens", model, texts)
    lens = lens_of(tmp_path / "a.lens", model)
    truth = reference(model, ALL_FAMILIES[name].blocks, texts)
    rounding = (1e-6 if name == "Llama" else 1e-5) * np.abs(truth).max()  # the lens is float32, so are other models
    for depth in range(3):
        np.testing.assert_allclose(matrix(lens, depth), truth[depth], rtol=1e-5, atol=rounding)
    x = torch.randn(2, 32)
    assert lens.apply(0, 3, x) is x


# --- halves, corpora, rank ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny("Llama")


@pytest.fixture(scope="module")
def whole(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lens of two corpora, three prompts and two."""
    path = tmp_path_factory.mktemp("lens") / "whole.lens"
    fitted(path, llama, {"words": TEXTS[:3], "letters": [*OTHERS, "too short"]})
    return path


def test_halves_and_corpora_average_to_the_whole(whole: Path, llama: Any) -> None:
    lens = lens_of(whole, llama)
    assert lens.parts == (
        "jacobian", "jacobian, half 1", "jacobian, half 2", "jacobian, corpus words", "jacobian, corpus letters",
    )  # fmt: skip
    for depth in range(3):
        all_of_it, one, other, words, letters = (matrix(lens, depth, part) for part in range(5))
        np.testing.assert_allclose((3 * one + 2 * other) / 5, all_of_it, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose((3 * words + 2 * letters) / 5, all_of_it, rtol=1e-5, atol=1e-6)
        assert np.abs(one - other).max() > 1e-3


def test_a_corpus_is_fitted_as_by_itself(whole: Path, llama: Any, tmp_path: Path) -> None:
    fitted(tmp_path / "words.lens", llama, TEXTS[:3])
    alone, together = lens_of(tmp_path / "words.lens", llama), lens_of(whole, llama)
    assert alone.parts == together.parts[:3]
    np.testing.assert_allclose(matrix(alone, 1), matrix(together, 1, 3), rtol=1e-5, atol=1e-6)


def test_what_was_left_out_is_counted(whole: Path) -> None:
    facts = stratoscope.info(whole)
    assert [(one["name"], one["prompts"], one["too_short"], one["cut"]) for one in facts["corpora"]] == [
        ("words", 3, 0, 3),
        ("letters", 2, 1, 2),
    ]
    assert (facts["prompts"], facts["positions"], facts["rank"]) == (5, 15, None)
    assert len(facts["apart"]) == 3
    assert "model" in facts
    assert "5 prompts" in info_text(facts)


def test_how_far_each_prompt_still_moved_it(whole: Path, llama: Any, tmp_path: Path) -> None:
    moved = read_lens_file(whole).arrays[MOVED]
    assert np.isnan(moved[0]).all()
    fitted(tmp_path / "four.lens", llama, {"words": TEXTS[:2], "letters": OTHERS})
    before, after = lens_of(tmp_path / "four.lens", llama), lens_of(whole, llama)
    for depth in range(3):
        change = np.linalg.norm(matrix(after, depth) - matrix(before, depth)) / np.linalg.norm(matrix(after, depth))
        np.testing.assert_allclose(moved[4, depth], change, rtol=1e-4)


@pytest.mark.parametrize("name", ["Llama", "GPT2"])
def test_a_low_rank_lens_is_the_full_one_along_its_directions(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    fitted(tmp_path / "full.lens", model)
    facts = fitted(tmp_path / "low.lens", model, rank=20)
    file, full = read_lens_file(tmp_path / "low.lens"), lens_of(tmp_path / "full.lens", model)
    low, read, write = lens_of(tmp_path / "low.lens", model), file.arrays[READ], file.arrays[WRITE]
    assert (read.shape, write.shape) == ((20, 32), (32, 20))
    np.testing.assert_allclose(read @ write, np.eye(20), atol=1e-4)
    for depth in range(3):
        np.testing.assert_allclose(matrix(low, depth), write @ read @ matrix(full, depth), rtol=1e-3, atol=1e-4)
    inputs = streams_of(model)
    lost = [lost_share(model, matrix(full, depth) @ inputs[depth].T, write @ read) for depth in range(3)]
    np.testing.assert_allclose(facts["outside"], lost, rtol=1e-3)
    assert 0 < max(lost) < 1


def streams_of(model: Any) -> list[np.ndarray]:
    """What stands at each depth at the counted tokens of all texts, [token, width]."""
    found: list[list[np.ndarray]] = [[], [], []]
    for text in TEXTS:
        ids = torch.tensor([byte_tokenizer()(text)["input_ids"][:20]])
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states
        for depth in range(3):
            found[depth].append(states[depth][0, 16:-1].double().numpy())
    return [np.concatenate(one) for one in found]


def lost_share(model: Any, y: np.ndarray, projection: np.ndarray) -> float:
    """The share of the squared logits of residuals [width, token] that a projection takes away."""
    weight = model.get_output_embeddings().weight.detach().double().numpy()
    norm = model.model.norm if hasattr(model, "model") else model.transformer.ln_f

    def logits(x: np.ndarray) -> np.ndarray:
        x = x if hasattr(model, "model") else x - x.mean(0)
        out = (weight * norm.weight.detach().double().numpy()) @ x
        return out - out.mean(0)  # type: ignore[no-any-return]

    return float(np.square(logits(y - projection @ y)).sum() / np.square(logits(y)).sum())


# --- interrupted ----------------------------------------------------------------------------------------------------


class _Stopped(BaseException):
    pass


def stopped(prompts: int, monkeypatch: pytest.MonkeyPatch, out: Path, *given: Any, **options: Any) -> None:
    """A fit dies while it writes the state that follows so many prompts."""
    write, written = means.write, 0

    def dies(*given: Any, **named: Any) -> None:
        nonlocal written
        if written == prompts:
            raise _Stopped
        written += 1
        write(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr("stratoscope.probe.lens.fit.write", dies)
        with pytest.raises(_Stopped):
            fitted(out, *given, **options)


@pytest.mark.parametrize("rank", [None, 12])
def test_resumed_it_is_what_it_is_in_one_go(
    llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int | None
) -> None:
    out, waits = tmp_path / "a.lens", tmp_path / "a.lens.unfinished"
    for prompts in (2, 1):  # lost is the prompt whose state was not written
        stopped(prompts, monkeypatch, out, llama, rank=rank, resume=waits.exists())
        assert not out.exists()
    assert read_lens_file(waits).facts["prompts"] == 3
    with pytest.raises(InputError, match="3 of 4"):
        lens_of(waits, llama)
    assert "NOT COMPLETE" in info_text(stratoscope.info(waits))
    with pytest.raises(InputError, match="a fit is there that is not finished"):
        fitted(out, llama, rank=rank)
    for other in ({"rank": 13}, {"max_tokens": 19}, {"chat": True}, {"texts": TEXTS[::-1]}):
        with pytest.raises(InputError, match="it was begun with another"):
            fitted(out, llama, **{"rank": rank, **other}, resume=True)
    fitted(out, llama, rank=rank, resume=True)
    assert not waits.exists()
    fitted(tmp_path / "b.lens", llama, rank=rank)
    assert out.read_bytes() == (tmp_path / "b.lens").read_bytes()
    with pytest.raises(InputError, match="complete"):
        fitted(out, llama, rank=rank, resume=True)


def test_the_old_one_stays_until_the_new_one_is_complete(
    whole: Path, llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.lens"
    out.write_bytes(whole.read_bytes())
    with pytest.raises(InputError, match=r"already exists.* --overwrite"):
        fitted(out, llama)
    stopped(1, monkeypatch, out, llama, overwrite=True)
    assert out.read_bytes() == whole.read_bytes()
    assert fitted(out, llama, resume=True)["prompts"] == 4


# --- refused --------------------------------------------------------------------------------------------------------


def test_too_few_long_texts_are_refused_by_count(llama: Any, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="2 prompts are needed, and there are 4, 3 prompts with fewer than 18 tokens left out"
    ):
        fitted(tmp_path / "a.lens", llama, ["short", "is", "this", TEXTS[0]])
    with pytest.raises(InputError, match="there is no corpus"):
        fitted(tmp_path / "a.lens", llama, {})


def test_more_directions_than_the_stream_has_are_refused(llama: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rank: 4000 directions are more than there are: the residual stream is 32"):
        fitted(tmp_path / "a.lens", llama, rank=4000)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 0}, "rank: 0 is too small"),
        ({"max_tokens": 17}, "max_tokens: 17 is too small"),
        ({"resume": True, "overwrite": True}, "resume"),
    ],
)
def test_what_cannot_be_right_is_refused(llama: Any, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        fitted(tmp_path / "a.lens", llama, **options)


def test_what_is_given_twice_counts_once(llama: Any, tmp_path: Path) -> None:
    facts = fitted(tmp_path / "a.lens", llama, {"one": [*TEXTS[:2], TEXTS[0]], "two": [*TEXTS[1:], TEXTS[3]]})
    assert [(one["prompts"], one["repeated"]) for one in facts["corpora"]] == [(2, 1), (2, 2)]
    assert "2 the same as another one and left out" in info_text(facts)
    words = "two: 2 prompts are needed, and there are 4, 4 prompts of the same tokens as another one left out"
    with pytest.raises(InputError, match=words):
        fitted(tmp_path / "b.lens", llama, {"one": TEXTS, "two": TEXTS})
    with pytest.raises(InputError, match=r"corpus: 2 prompts are needed, and there is 1\. Give more texts"):
        fitted(tmp_path / "b.lens", llama, TEXTS[:1])


def test_a_text_is_cut_to_the_models_context(tmp_path: Path) -> None:
    model = tiny("GPT2")
    model.config.n_positions = 19
    facts = fitted(tmp_path / "a.lens", model, max_tokens=128)
    assert (facts["positions"], facts["corpora"][0]["cut"]) == (4 * 2, 4)
    assert "4 cut to 19 tokens" in info_text(facts)
    model.config.n_positions = 17
    with pytest.raises(InputError, match="its context holds 17 tokens, and texts of 18 are needed"):
        fitted(tmp_path / "b.lens", model)


def test_a_corpus_called_like_a_half_is_another_part(llama: Any, tmp_path: Path) -> None:
    fitted(tmp_path / "a.lens", llama, {"half 1": TEXTS[:2], "words": TEXTS[2:]})
    assert lens_of(tmp_path / "a.lens", llama).parts == (
        "jacobian", "jacobian, half 1", "jacobian, half 2", "jacobian, corpus half 1", "jacobian, corpus words",
    )  # fmt: skip
    assert list(_by_name([Path("x/a.txt"), Path("x/a (2).txt"), Path("y/a.txt")])) == ["a", "a (2)", "a (3)"]


def test_what_it_may_not_replace_stays(whole: Path, llama: Any, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_text("kept")
    (tmp_path / "link").symlink_to(model / "model.safetensors")
    for out in (model / "model.safetensors", model / "new.lens", tmp_path / "link"):
        with pytest.raises(InputError, match="is among the files of the model"):
            stratoscope.fit_lens(model, TEXTS, out, overwrite=True)
    (tmp_path / "a.lens.unfinished").write_text("kept")
    for out in (model / "config.json", tmp_path / "a.lens"):
        with pytest.raises(InputError, match="something that is no fitted lens is already there"):
            fitted(out, llama, overwrite=True)
    stratoscope.simulate(prompts=1, layers=2, out=tmp_path / "a.trace")
    with pytest.raises(InputError, match="is inside a trace"):
        fitted(tmp_path / "a.trace" / "a.lens", llama)
    assert {path.read_text() for path in [*model.iterdir(), tmp_path / "a.lens.unfinished"]} == {"kept"}


def test_the_file_may_not_be_what_it_is_made_of(llama: Any, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS))
    with pytest.raises(InputError, match="is what it would be made of"):
        fitted(texts, llama, texts, overwrite=True)
    with pytest.raises(InputError, match="is a folder"):
        fitted(tmp_path, llama)
    with pytest.raises(InputError, match="does not exist"):
        fitted(tmp_path / "none" / "a.lens", llama)


def test_gradients_that_are_no_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("Llama")

    def broken(*given: Any) -> None:
        given[-1](slice(0, 32), torch.full((3, 32, 32), float("nan")))

    monkeypatch.setattr(Jacobians, "run", broken)
    with pytest.raises(CaptureError, match=r"gradients of text 1 .* are not finite"):
        fitted(tmp_path / "a.lens", model)
    assert not list(tmp_path.glob("*"))


def test_a_batch_that_does_not_fit_is_run_in_smaller_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    length, width = 24, 5
    model, ids = Linear(torch.tril(torch.ones(length, length)).double() / length), np.arange(length)
    at_once = of_all(model.jacobians(ids), ids, torch.eye(width))
    forward: Callable[..., Any] = model.forward

    def crowded(input_ids: Tensor, **options: Any) -> Any:
        if len(input_ids) > 2:
            raise MemoryError
        return forward(input_ids, **options)

    monkeypatch.setattr(model, "forward", crowded)
    torch.testing.assert_close(of_all(model.jacobians(ids), ids, torch.eye(width)), at_once)
