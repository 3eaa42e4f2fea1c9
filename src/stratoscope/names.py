"""Every dimension, quantity, unit and record group: the only place these strings live.

A quantity is something a trace may hold. Its row here is the whole of what the writer, the reader, the
pictures and the documentation know about it; `docs/format.md` and `docs/quantities.md` are checked against it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

# --- dimensions -----------------------------------------------------------------------------------------------------

TOKEN = "token"  # flat over all prompts, in prompt-file order
PROMPT = "prompt"
LAYER = "layer"  # block numbers; an import may hold only 22-31
DEPTH = "depth"  # the L+1 places of the residual stream: before block 0 .. after the last block
ROW_LETTERS: Mapping[str, str] = {LAYER: "L", DEPTH: "D"}  # before the number of a row: L5, D6
HEAD = "head"
PEAK = "peak"  # rank among the recorded peaks, 0 = strongest
CHOICE = "choice"  # the experts that a token is routed to, in the router's order
NEURON = "neuron"  # index of the MLP's activations (width d_ff); experts one after the other, then a shared expert
ACTIVE = (
    "active"  # neurons that are active at a token: of its chosen experts in the router's order, then the shared expert
)
EDGE = "edge"  # a pair (query, key ≤ query) of a prompt, query by query; prompts one after the other
OPENER = "opener"  # one of the beginnings of an answer whose log-odds are recorded
TARGET = "target"  # a token whose logit is explained, against another or the mean of the vocabulary
LOGIT_RANK = "logit_rank"  # neurons: the first half the most promoting, strongest first; then the most suppressing
EFFECT_RANK = "effect_rank"  # neurons of largest effect, of either sign, strongest first
STRONGEST = "strongest"  # neurons at a token of largest effect in the prompt: ten that promote, then ten that suppress
READ_PART = "read_part"  # what a neuron reads: its gate, its up projection
COMPONENT = "component"  # what writes: the embedding, then attention and MLP of each layer, last the biases
WRITE_RANK = "write_rank"  # tokens that a neuron's write changes most: five promoted, then five demoted
LENS = "lens"  # a way to read the residual stream as tokens, by its number in the plan's `lenses`: 0 = the logit lens
LENS_RANK = "lens_rank"  # tokens that a lens reads, likeliest first
ROUTE = "route"  # edges of attention that end in a token, of largest size first
ROW = "row"  # one line of an imported CSV

# --- coordinates ----------------------------------------------------------------------------------------------------

SPANS = ("system", "template", "user", "answer", "special", "generated")  # `span` holds an index into this, -1 unknown
TEMPLATE_SPANS = ("template", "special")  # drawn dimmed: they are the same for every prompt
PROMPT_TEXTS = ("prompt_id", "prompt_class", "pair", "group")  # text on `prompt`; "" where there is none

# --- where an array comes from --------------------------------------------------------------------------------------

RESULT_STORE = "result.zarr"  # in the folder of a result
REAL, SIMULATED, IMPORTED = "real", "simulated", "imported"
SOURCES = (REAL, SIMULATED, IMPORTED)

# --- what an imported Neuron_ID is an index of ----------------------------------------------------------------------

Axis = Literal["neuron", "residual", "unknown"]
AXES: tuple[Axis, ...] = get_args(Axis)
AXIS_WORDS: Mapping[str, str] = {
    "neuron": "Neuron_ID: MLP neurons",
    "residual": "Neuron_ID: residual coordinates",
    "unknown": "Neuron_ID: not known whether MLP neurons or residual coordinates",
}

# --- display --------------------------------------------------------------------------------------------------------

Scale = Literal["linear", "log", "robust", "per-layer"]
SCALES: tuple[Scale, ...] = get_args(Scale)
Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = get_args(Theme)
PICTURES = (".png", ".svg", ".pdf")  # endings of the files of static pictures
Rows = Literal["layers", "prompts"]
ROWS: tuple[Rows, ...] = get_args(Rows)
Caption = Literal["below", "file", "none"]
CAPTIONS: tuple[Caption, ...] = get_args(Caption)

# --- how much of a recording is replayed ------------------------------------------------------------------------------

Verify = Literal["sample", "full"]
VERIFY: tuple[Verify, ...] = get_args(Verify)

# --- where targets are explained --------------------------------------------------------------------------------------

ANSWER_POSITION, ALL_POSITIONS = "answer", "all"
Positions = Literal["answer", "all"]
TOP = "top"  # in place of targets: of each prompt the likeliest token
POSITIONS: tuple[Positions, ...] = get_args(Positions)

# --- what ablating sets neurons and heads to ---------------------------------------------------------------------------

How = Literal["mean", "resample", "zero"]
MEAN, RESAMPLE, ZERO = HOW = get_args(How)

# --- what total effects are counted from ------------------------------------------------------------------------------

Baseline = Literal["zero", "mean"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)

# --- by what neurons are ranked -----------------------------------------------------------------------------------------

Ranking = Literal["write", "effect", "direct"]
RANKINGS: tuple[Ranking, ...] = get_args(Ranking)

# --- what a node of a route graph is made of ------------------------------------------------------------------------------

# one head from one token; the token's own stream; what its MLP wrote; attention's biases; what is not shown
RouteKind = Literal["attention", "carry-over", "mlp", "bias", "rest"]
ROUTE_KINDS: tuple[RouteKind, ...] = get_args(RouteKind)

# --- how classes are compared -----------------------------------------------------------------------------------------

Statistic = Literal["prompt_mean", "prompt_max", "prompt_min"]
Unequal = Literal["subsample", "rank-sum"]  # what is done about classes of more than 2 : 1
UNEQUAL: tuple[Unequal, ...] = get_args(Unequal)

# --- the CSV people have today --------------------------------------------------------------------------------------

CSV_POSITION, CSV_TOKEN, CSV_LAYER, CSV_NEURON, CSV_VALUE = (
    "Token_Pos",
    "Token",
    "Layer",
    "Neuron_ID",
    "Activation_Norm",
)
CSV_COLUMNS = (CSV_POSITION, CSV_TOKEN, CSV_LAYER, CSV_NEURON, CSV_VALUE)
CSV_PEAK_VALUE, CSV_WRITE_NORM, CSV_EXPERT = "Peak_Value", "Write_Norm", "Expert"  # added to an exported recording
CSV_PROMPT = "Prompt"  # where one exported file holds several prompts: the id

# --- how much of a record is published -----------------------------------------------------------------------------------

Level = Literal["provenance", "no-text", "aggregate", "private"]
LEVELS: tuple[Level, ...] = get_args(Level)  # each keeps less than the one before
PROVENANCE, NO_TEXT, AGGREGATE, PRIVATE = LEVELS

# --- versions of the trace format -----------------------------------------------------------------------------------

FormatVersion = Literal["1.0", "1.1", "1.2", "2.0"]
FORMAT_VERSIONS: tuple[FormatVersion, ...] = get_args(FormatVersion)
RENAMED_ARRAYS = {"refused": "opens_as_refusal"}  # names in versions 1.x → names since 2.0
RENAMED_DIMENSIONS = {"k": PEAK}

# --- record groups --------------------------------------------------------------------------------------------------

NORMS, RESIDUAL, PEAKS, PROMPTS, ATTENTION = "norms", "residual", "peaks", "prompts", "attention"
NEURONS, ATTENTION_FULL = "neurons", "attention-full"
LOGITS, EFFECTS = "logits", "effects"  # direct contributions to the logit of a target; total effects on it
OF_TARGETS = (LOGITS, EFFECTS)  # groups that explain the logits of targets
LENSES, ROUTES = "lens", "routes"  # what each depth reads as tokens; along which edges of attention a token is made
GROUPS_WITHOUT_FLOOR = (*OF_TARGETS, LENSES, ROUTES)  # what `--floor` does not measure
# each a file of recorder/groups
RECORD_GROUPS = (NORMS, RESIDUAL, PEAKS, PROMPTS, ATTENTION, NEURONS, ATTENTION_FULL, LOGITS, EFFECTS, LENSES, ROUTES)
# small, and of every token: what is recorded where everything that costs little is wanted
SUMMARIES = (NORMS, RESIDUAL, PEAKS, PROMPTS, ATTENTION)
OUTCOME = "outcome"  # comes with `--generate` and `--openers`
TARGETS = "targets"  # comes with every group that asks for targets
FLOOR = "floor"  # not recorded of every token: measured once, by `--floor`


@dataclass(frozen=True)
class Quantity:
    """One thing a trace may hold.

    Attributes
    ----------
    name, dims, dtype
        Name, dimensions in order and NumPy dtype of the array; "model" stands for the dtype the model computes in.
    unit, label, formula
        Unit ("1" = a pure number), the words on an axis, and the definition, for legends and documentation.
    group
        The `--record` group that brings it; "outcome" for what comes with `--generate` and `--openers`, "targets" for
        what comes with every group that explains logits, "floor" for what `--floor` measures, "import" for a CSV's values.
    since
        The format version that introduced it.
    signed
        Whether negative values have a meaning, so that pictures use a zero-centred diverging scale.
    log
        Whether its natural scale is logarithmic.
    elsewhere
        What other tools call the tensor that it is, or is the size of: tool → name, with L for the layer or depth.
    streamed
        Whether it is too large to be held: its rows go to disk as the layers give them.
    at_answer
        Whether it is known only where an answer begins, unless `--positions all` is given: at a prompt's last token
        before its answer, of lenses at the three before that too.
    of_later_tokens
        Whether it is a mean over later tokens, of which the last tokens of a prompt have few.
    beside
        The group beside which alone it is recorded ("targets": where targets are named or explained); "" = always.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    unit: str
    label: str
    formula: str
    group: str
    since: FormatVersion
    signed: bool = False
    log: bool = False
    streamed: bool = False
    elsewhere: Mapping[str, str] = field(default_factory=dict, hash=False)
    at_answer: bool = False
    of_later_tokens: bool = False
    beside: str = ""

    @property
    def row_kind(self) -> str:
        """What the rows of its pictures and profiles are: layers or depths; of one that has neither, its target."""
        if DEPTH in self.dims:
            return DEPTH
        return TARGET if TARGET in self.dims and LAYER not in self.dims else LAYER

    @property
    def is_effect(self) -> bool:
        """Whether it is a total effect on a target's logit."""
        return EFFECTS in (self.group, self.beside)

    @property
    def adds_up(self) -> bool:
        """Whether its heads, and its layers, are parts of one sum, so that pictures add heads and do not average."""
        return TARGET in self.dims and self.signed and DEPTH not in self.dims

    def formula_in(self, held: Container[Any]) -> str:
        """The formula as it reads beside these quantities: nothing is said of experts where a model has none."""
        has_experts = any(name in held for name in ("router_expert", "peak_expert"))
        return self.formula if has_experts else self.formula.partition(_OF_EXPERTS)[0]


TOOLS = ("TransformerLens", "interp-engine", "Hugging Face")


def _called(*tools: str) -> dict[str, str]:
    return {tool: name for tool, name in zip(TOOLS, tools, strict=True) if name}


# block-level hook_mlp_out is behind a post-norm, mlp.hook_out in front of it: on Gemma 2 they differ by a factor of 15
_NEURONS_ELSEWHERE = _called("blocks.L.mlp.hook_post", "mlp_act.L", "mlp.down_proj input")
_OUT_ELSEWHERE = _called("blocks.L.mlp.hook_out", "mlp_out.L", "mlp output")
_WRITE_ELSEWHERE = _called("blocks.L.hook_mlp_out", "mlp_out_post.L", "mlp output behind its post-norm")
_RESID_ELSEWHERE = _called(
    "blocks.L.hook_resid_pre", "resid_pre.L", "hidden_states[L]"
)  # their last may be behind a norm
_PATTERN_ELSEWHERE = _called("blocks.L.attn.hook_pattern", "attn_probs.L", "")


_OF_EXPERTS = "; in a mixture of experts "
_NORM = "L2 norm"
_TL, _TLP, _TLH, _PLN = (TOKEN, LAYER), (TOKEN, LAYER, PEAK), (TOKEN, LAYER, HEAD), (PROMPT, LAYER, NEURON)
_TLC, _TLN = (TOKEN, LAYER, CHOICE), (TOKEN, LAYER, NEURON)
_TLT, _TLTE = (TOKEN, LAYER, TARGET), (TOKEN, LAYER, TARGET, EFFECT_RANK)
_PTS, _PTSW = (PROMPT, TARGET, STRONGEST), (PROMPT, TARGET, STRONGEST, WRITE_RANK)
_TTSR = (TOKEN, TARGET, STRONGEST, READ_PART)
_TDN, _TDNR, _TDNT = (TOKEN, DEPTH, LENS), (TOKEN, DEPTH, LENS, LENS_RANK), (TOKEN, DEPTH, LENS, TARGET)
_TLO, _TLTO = (TOKEN, LAYER, ROUTE), (TOKEN, LAYER, TARGET, ROUTE)

# fmt: off
_TABLE = (  # one row, one line
    # norms ----------------------------------------------------------------------------------------------------------
    Quantity("neuron_norm", _TL, "float32", _NORM, "MLP neuron activity", "‖a‖₂, a = input of the down projection; in a mixture of experts the neurons of the chosen and shared experts, unweighted", NORMS, "1.0", log=True, elsewhere=_NEURONS_ELSEWHERE),
    Quantity("mlp_out_norm", _TL, "float32", _NORM, "MLP output", "‖W a + b‖₂, the down_proj output", NORMS, "1.0", log=True, elsewhere=_OUT_ELSEWHERE),
    Quantity("mlp_write_norm", _TL, "float32", _NORM, "MLP write", "‖what the MLP adds to the residual stream‖₂", NORMS, "1.0", log=True, elsewhere=_WRITE_ELSEWHERE),
    Quantity("attn_write_norm", _TL, "float32", _NORM, "attention write", "‖what attention adds to the residual stream‖₂", NORMS, "1.0", log=True),
    Quantity("mlp_write_ratio", _TL, "float32", "1", "MLP write / residual", "‖MLP write‖₂ / ‖residual it is added to‖₂", NORMS, "1.0", log=True),
    Quantity("attn_write_ratio", _TL, "float32", "1", "attention write / residual", "‖attention write‖₂ / ‖residual it is added to‖₂", NORMS, "1.0", log=True),
    Quantity("mlp_write_cos", _TL, "float32", "1", "cos(MLP write, residual)", "cosine of the MLP write with the residual it is added to; −1 erases", NORMS, "1.0", signed=True),
    Quantity("attn_write_cos", _TL, "float32", "1", "cos(attention write, residual)", "cosine of the attention write with the residual it is added to; −1 erases", NORMS, "1.0", signed=True),
    Quantity("router_expert", _TLC, "int32", "index", "chosen expert", "the experts the token is routed to; −1 in a block without experts", NORMS, "1.1"),
    Quantity("router_weight", _TLC, "float32", "1", "router weight", "what the output of each chosen expert is multiplied by", NORMS, "1.1"),
    # residual -------------------------------------------------------------------------------------------------------
    Quantity("resid_norm", (TOKEN, DEPTH), "float32", _NORM, "residual stream", "‖x‖₂ before each block and after the last, before the final norm", RESIDUAL, "1.0", log=True, elsewhere=_RESID_ELSEWHERE),
    Quantity("resid_cos", _TL, "float32", "1", "cos(block input, block output)", "cosine of the residual stream before a block with that behind it; 1 = the block changed its length only", RESIDUAL, "2.0", signed=True),
    # peaks ----------------------------------------------------------------------------------------------------------
    Quantity("peak_neuron", _TLP, "int32", "index", "peak neuron", "the k neurons of largest |a_i|·‖W_:,i‖₂, strongest first; −1 = none; in a mixture of experts i counts within an expert, and the product is times the router weight", PEAKS, "1.0"),
    Quantity("peak_expert", _TLP, "int32", "index", "expert of the peak neuron", "the expert that the neuron is of; −1 = a dense MLP or a shared expert", PEAKS, "1.1"),
    Quantity("peak_value", _TLP, "float32", "activation", "peak activation", "a_i of those neurons, with its sign", PEAKS, "1.0", signed=True),
    Quantity("peak_write", _TLP, "float32", _NORM, "peak write", "|a_i|·‖W_:,i‖₂ of those neurons; in a mixture of experts times the router weight or the shared expert's gate", PEAKS, "1.0", log=True),
    Quantity("peak_share", _TL, "float32", "1", "share of the peaks", "Σ over the k peaks of (|a_i|‖W_:,i‖)² / the same sum over all neurons", PEAKS, "1.0"),
    Quantity("peak_explained", _TL, "float32", "1", "output explained by the peaks", "⟨W_S a_S, W a⟩ / ‖W a‖² over the k peaks S, without bias", PEAKS, "1.0", signed=True),
    # prompts --------------------------------------------------------------------------------------------------------
    Quantity("prompt_mean", _PLN, "float32", "activation", "mean activation", "mean of a_i over the prompt's user tokens, first token excluded; in a mixture of experts over those routed to the expert, NaN where none is", PROMPTS, "1.0", signed=True),
    Quantity("prompt_max", _PLN, "float32", "activation", "largest activation", "maximum of a_i over the same tokens", PROMPTS, "1.0", signed=True),
    Quantity("prompt_min", _PLN, "float32", "activation", "smallest activation", "minimum of a_i over the same tokens", PROMPTS, "1.0", signed=True),
    # attention ------------------------------------------------------------------------------------------------------
    Quantity("attn_received", _TLH, "float32", "1", "attention received", "Σ_q≠t A[q,t] / Σ_q≠t r_q/(n_q−1), over queries q that see t; n_q = tokens q sees, r_q = Σ_k≠q A[q,k]; 1 = uniform", ATTENTION, "1.0", log=True, of_later_tokens=True),
    Quantity("attn_received_nosink", _TLH, "float32", "1", "attention received, first token removed", "attn_received with the first token removed and rows renormalised", ATTENTION, "1.0", log=True, of_later_tokens=True),
    Quantity("attn_entropy", _TLH, "float32", "1", "attention entropy", "−Σ_k A log A / log n_q, n_q = tokens q sees (a learned sink counts as one more)", ATTENTION, "1.0"),
    Quantity("attn_entropy_nosink", _TLH, "float32", "1", "attention entropy, first token removed", "attn_entropy with the first token removed and rows renormalised", ATTENTION, "1.0"),
    Quantity("attn_first", _TLH, "float32", "1", "attention on the first token", "mass on the prompt's first token; undefined where the layer's window does not reach it", ATTENTION, "1.0"),
    Quantity("attn_distance", _TLH, "float32", "tokens", "attention distance", "Σ_k A·(q−k)", ATTENTION, "1.0", log=True),
    Quantity("attn_distance_nosink", _TLH, "float32", "tokens", "attention distance, first token removed", "attn_distance with the first token removed and rows renormalised", ATTENTION, "1.0", log=True),
    Quantity("attn_null", _TLH, "float32", "1", "attention on a learned sink", "mass on the model's learned sink", ATTENTION, "1.0"),
    Quantity("attn_value_norm", _TLH, "float32", _NORM, "what the head moves", "‖W_O Σ_k A v‖₂ of this head, before any norm of the attention's output", ATTENTION, "1.0", log=True),
    # streamed -------------------------------------------------------------------------------------------------------
    Quantity("neurons", _TLN, "model", "activation", "neuron activation", "a, input of the down projection, as the model computed it; NaN beyond the width of a narrower block", NEURONS, "1.2", signed=True, streamed=True, elsewhere=_NEURONS_ELSEWHERE),
    Quantity("active_neurons", (TOKEN, LAYER, ACTIVE), "model", "activation", "activation of the chosen experts' neurons", "a of neuron i of the expert that is router_expert[…, s] at s·expert_width + i, then of the shared expert; of a dense block from 0", NEURONS, "1.2", signed=True, streamed=True),
    Quantity("attention", (EDGE, LAYER, HEAD), "float16", "1", "attention weight", "A[q,k] for k ≤ q at q(q+1)/2 + k behind the pairs of earlier prompts; NaN where the mask hides k from q", ATTENTION_FULL, "1.2", streamed=True, elsewhere=_PATTERN_ELSEWHERE),
    # outcome --------------------------------------------------------------------------------------------------------
    Quantity("opener_log_odds", (PROMPT, OPENER), "float32", "nat", "log-odds of an opener", "log p − log(1 − p), p = Π_i p(opener token i | prompt, opener tokens before i): the answer begins with exactly these tokens", OUTCOME, "1.1", signed=True),
    Quantity("opens_as_refusal", (PROMPT,), "int32", "1", "answer opens as a refusal", "1 = the generated text begins with one of plan.refusal_patterns and with none of those behind !, 0 = it does not; −1 = nothing was generated", OUTCOME, "1.1"),
    Quantity("refusal_pattern", (PROMPT,), "int32", "index", "refusal pattern", "which of plan.refusal_patterns told it, the first that fits; −1 = none", OUTCOME, "1.1"),
    # effects --------------------------------------------------------------------------------------------------------
    Quantity("effect_neuron", _TLTE, "int32", "index", "neuron of the effect", "the k neurons of largest |total effect|, strongest first; −1 = no (more) neuron with an effect other than 0, as in the last layer before the answer position; flat as on the axis neuron", EFFECTS, "2.0"),
    Quantity("neuron_effect", _TLTE, "float32", "logit", "total effect of a neuron", "(a − baseline)·∂y/∂a of those neurons, y = answer_logit: to first order what the neuron at its baseline would take off; with effect_steps the mean of ∂y/∂a on the way there; NaN where effect_neuron is −1", EFFECTS, "2.0", signed=True),
    Quantity("mlp_effect", _TLT, "float32", "logit", "total effect of the MLP", "Σ over its neurons of (a − baseline)·∂y/∂a; where a norm stands behind the MLP (write − write at the baseline)·∂y/∂write behind it", EFFECTS, "2.0", signed=True),
    Quantity("attn_effect", _TLT, "float32", "logit", "total effect of attention", "Σ over its heads of (z − baseline)·∂y/∂z; where a norm stands behind it, and of other mixers, (write − baseline)·∂y/∂write", EFFECTS, "2.0", signed=True),
    Quantity("head_effect", (TOKEN, LAYER, HEAD, TARGET), "float32", "logit", "total effect of a head", "Σ over what the head gives of (z − baseline)·∂y/∂z, z = input of attention's last linear map", EFFECTS, "2.0", signed=True),
    Quantity("strongest_position", _PTS, "int32", "index", "token of the strongest", "place in the prompt of the (neuron, token) pairs of largest total effect, the first token of a prompt of several left out: ten that promote, strongest first, then ten that suppress; −1 = none", EFFECTS, "2.0"),
    Quantity("strongest_layer", _PTS, "int32", "index", "layer of the strongest", "their layers", EFFECTS, "2.0"),
    Quantity("strongest_neuron", _PTS, "int32", "index", "neuron of the strongest", "their neurons, flat as on the axis neuron", EFFECTS, "2.0"),
    Quantity("strongest_value", _PTS, "float32", "activation", "activation of the strongest", "a of those neurons, with its sign", EFFECTS, "2.0", signed=True),
    Quantity("strongest_effect", _PTS, "float32", "logit", "total effect of the strongest", "neuron_effect of those pairs", EFFECTS, "2.0", signed=True),
    Quantity("strongest_logit", _PTS, "float32", "logit", "direct contribution of the strongest", "what a·W_:,i itself adds to answer_logit, norms as they were; exactly 0 at earlier tokens, which reach it only through attention", EFFECTS, "2.0", signed=True),
    Quantity("write_token", _PTSW, "int32", "index", "token written", "the tokens whose logits a·W_:,i changes most at its own token, five promoted, then five demoted, strongest first; texts in the attribute token_texts", EFFECTS, "2.0"),
    Quantity("write_logit", _PTSW, "float32", "logit", "change of the token's logit", "a·W_:,i through the norms as they were and the unembedding, less its mean over the vocabulary", EFFECTS, "2.0", signed=True),
    Quantity("neuron_read", _TTSR, "float32", "pre-activation", "what the neuron read from this token", "what this token gave to the gate and to the up map of each of the strongest neurons, norms, gates and attention weights as they were: the embedding and MLPs to their own token, A[q,t] v_t of each head to t; 0 behind the neuron's token; Σ over tokens + the biases of read_component = the pre-activation; NaN where attention is not split by token", EFFECTS, "2.0", signed=True),
    Quantity("read_through", _TTSR, "int32", "index", "component it came through", "the component of read_component through which most of neuron_read came; −1 = none", EFFECTS, "2.0"),
    Quantity("read_component", (PROMPT, TARGET, STRONGEST, READ_PART, COMPONENT), "float32", "pre-activation", "what the neuron read of this component", "the gate (0) and the up map (1) of each of the strongest neurons before the activation function, by what wrote it: 0 the embedding, 1 + 2l attention and 2 + 2l MLP of layer l, last the biases; their sum is the pre-activation; NaN of a block without one, and of an MLP with one map", EFFECTS, "2.0", signed=True),
    # targets --------------------------------------------------------------------------------------------------------
    Quantity("target_token", (PROMPT, TARGET), "int32", "index", "target token", "the token whose logit is explained", TARGETS, "2.0"),
    Quantity("against_token", (PROMPT, TARGET), "int32", "index", "token it is compared with", "the token whose logit is taken off; −1 = the mean over the vocabulary", TARGETS, "2.0"),
    Quantity("answer_logit", (PROMPT, TARGET), "float32", "logit", "target logit of the model", "y = logit of the target − that of against_token, of the model's own logits at the prompt's last token, before a soft-cap", TARGETS, "2.0", signed=True),
    # logits ---------------------------------------------------------------------------------------------------------
    Quantity("target_logit", (TOKEN, TARGET), "float32", "logit", "target logit", "y read off the residual stream behind the last block: embed_logit + Σ attn_logit + Σ mlp_logit + norm_bias_logit + head_bias_logit; a prediction only at the prompt's last token", LOGITS, "2.0", signed=True),
    Quantity("embed_logit", (TOKEN, TARGET), "float32", "logit", "direct contribution of the embedding", "s_t·⟨d, x_0⟩, d = γ ⊙ (W_U[target] − W_U[against]) times the factors of the logits, centred where the final norm centres; s_t = 1 / the size by which that norm divides", LOGITS, "2.0", signed=True),
    Quantity("attn_logit", _TLT, "float32", "logit", "direct contribution of attention", "s_t·⟨d, attention write⟩ = Σ head_logit + attn_bias_logit", LOGITS, "2.0", signed=True),
    Quantity("mlp_logit", _TLT, "float32", "logit", "direct contribution of the MLP", "s_t·⟨d, MLP write⟩ = Σ neuron_logit + other_neurons_logit + mlp_bias_logit", LOGITS, "2.0", signed=True),
    Quantity("head_logit", (TOKEN, LAYER, HEAD, TARGET), "float32", "logit", "direct contribution of a head", "s_t·⟨d, W_O z⟩ of what this head gives, behind a norm of the attention's output with its scale as it was", LOGITS, "2.0", signed=True, at_answer=True),
    Quantity("source_logit", (TOKEN, LAYER, HEAD, TARGET), "float32", "logit", "direct contribution of a head by source token", "s_q·⟨d, W_O (A[q,t] v_t)⟩ of the value v_t that this head took from token t for the answer position q, a gate or norm between the two as q had it; Σ over t = head_logit at q; NaN where attention is not split by token", LOGITS, "2.0", signed=True),
    Quantity("neuron_logit", (TOKEN, LAYER, TARGET, LOGIT_RANK), "float32", "logit", "direct contribution of a neuron", "s_t·⟨d, a_i W_:,i⟩ of the k neurons that promote the target most, then of the k that suppress it most, strongest first, behind a norm of the MLP's output with its scale as it was; NaN where fewer do; in a mixture of experts times the router weight or the shared expert's gate", LOGITS, "2.0", signed=True, at_answer=True),
    Quantity("logit_neuron", (TOKEN, LAYER, TARGET, LOGIT_RANK), "int32", "index", "neuron of the contribution", "which neurons neuron_logit is of, on the axis neuron; −1 = none", LOGITS, "2.0", at_answer=True),
    Quantity("other_neurons_logit", _TLT, "float32", "logit", "direct contribution of all other neurons", "Σ s_t·⟨d, a_i W_:,i⟩ over the neurons that are not in logit_neuron", LOGITS, "2.0", signed=True, at_answer=True),
    Quantity("attn_bias_logit", _TLT, "float32", "logit", "direct contribution of attention's biases", "s_t·⟨d, bias of W_O⟩, and that of β of a norm of the attention's output", LOGITS, "2.0", signed=True, at_answer=True),
    Quantity("mlp_bias_logit", _TLT, "float32", "logit", "direct contribution of the MLP's biases", "s_t·⟨d, bias of W⟩, and that of β of a norm of the MLP's output; in a mixture of experts the biases of the chosen and shared experts, weighted", LOGITS, "2.0", signed=True, at_answer=True),
    Quantity("norm_bias_logit", (PROMPT, TARGET), "float32", "logit", "direct contribution of the final norm's β", "⟨W_U[target] − W_U[against], β⟩ times the factors of the logits; 0 where there is no β", LOGITS, "2.0", signed=True),
    Quantity("head_bias_logit", (PROMPT, TARGET), "float32", "logit", "direct contribution of the unembedding's bias", "its difference between target and against; 0 where there is none", LOGITS, "2.0", signed=True),
    Quantity("final_scale", (PROMPT,), "float32", "1", "factor of the final norm", "s_t at the prompt's last token: 1 / the size by which the final norm divides; contributions of two prompts or models are compared at one factor", LOGITS, "2.0", log=True),
    # lens -----------------------------------------------------------------------------------------------------------
    Quantity("lens_token", _TDNR, "int32", "index", "token that a lens reads", "the likeliest tokens of softmax(unembed(norm(x))), likeliest first, x the residual stream at this depth, of a fitted lens J x in its place; at the last depth the model's own logits in every lens; at the answer position and the three before it, or at every token; −1 elsewhere; texts in the attribute token_texts", LENSES, "2.0", at_answer=True),
    Quantity("lens_logprob", _TDNR, "float32", "nat", "log-probability of a token that a lens reads", "log softmax(unembed(norm(x))) of those tokens", LENSES, "2.0", at_answer=True),
    Quantity("lens_answer_logprob", _TDN, "float32", "nat", "log-probability that a lens gives the model's answer", "log softmax(unembed(norm(x))) of the token that the model itself finds likeliest there, lens_token at the last depth", LENSES, "2.0", at_answer=True),
    Quantity("lens_answer_rank", _TDN, "int32", "1", "rank that a lens gives the model's answer", "1 + the number of tokens that the lens finds likelier than the token that the model itself finds likeliest there; −1 elsewhere", LENSES, "2.0", at_answer=True, log=True),
    Quantity("lens_target_logprob", _TDNT, "float32", "nat", "log-probability that a lens gives the target", "log softmax(unembed(norm(x))) of the target", LENSES, "2.0", at_answer=True, beside=TARGETS),
    Quantity("lens_target_rank", _TDNT, "int32", "1", "rank that a lens gives the target", "1 + the number of tokens that the lens finds likelier than the target; −1 elsewhere", LENSES, "2.0", at_answer=True, log=True, beside=TARGETS),
    Quantity("lens_target_logit", _TDNT, "float32", "logit", "logit that a lens gives the target", "y of unembed(norm(x)) at every token, before a soft-cap: logit of the target − that of against_token, or the mean of the vocabulary", LENSES, "2.0", signed=True, beside=TARGETS),
    # routes ---------------------------------------------------------------------------------------------------------
    Quantity("route_source", _TLO, "int32", "index", "source of the edge", "position in the prompt of the token from which a head brings what it writes here, of the 16 edges (head, source) of largest |weight|, strongest first; −1 = none", ROUTES, "2.0"),
    Quantity("route_head", _TLO, "int32", "index", "head of the edge", "the head that brings it; −1 = none", ROUTES, "2.0"),
    Quantity("route_weight", _TLO, "float32", "1", "share of an edge of attention", "⟨w, x_mid⟩ / ‖x_mid‖², w = what the head writes here of the value of the source token, x_mid = x_in + all that attention writes; Σ route_weight + route_other + route_bias + route_carry = 1; negative = it takes away from what is there", ROUTES, "2.0", signed=True),
    Quantity("route_other", _TL, "float32", "1", "share of all other edges", "Σ of that share over the edges that are not among the 16; of a mixer that is not split by token its whole write", ROUTES, "2.0", signed=True),
    Quantity("route_other_size", _TL, "float32", "1", "size of all other edges", "Σ |share| over the edges that are not among the 16", ROUTES, "2.0"),
    Quantity("route_bias", _TL, "float32", "1", "share of attention's biases", "⟨biases of attention's write, x_mid⟩ / ‖x_mid‖²; 0 where there is none", ROUTES, "2.0", signed=True),
    Quantity("route_carry", _TL, "float32", "1", "share of the token's own stream", "⟨x_in, x_mid⟩ / ‖x_mid‖²: what stays of the residual stream that enters the block", ROUTES, "2.0", signed=True),
    Quantity("route_mid", _TL, "float32", "1", "share of the stream in front of the MLP", "⟨x_mid, x_out⟩ / ‖x_out‖², x_out = x_mid + what the MLP writes, in parallel blocks too; route_mid + route_mlp = 1", ROUTES, "2.0", signed=True),
    Quantity("route_mlp", _TL, "float32", "1", "share of the MLP", "⟨what the MLP writes, x_out⟩ / ‖x_out‖²", ROUTES, "2.0", signed=True),
    Quantity("route_effect_source", _TLTO, "int32", "index", "source of the edge by effect", "position in the prompt of the source token of the 16 edges of largest |effect|, strongest first; −1 = none", ROUTES, "2.0", beside=EFFECTS),
    Quantity("route_effect_head", _TLTO, "int32", "index", "head of the edge by effect", "the head that brings it; −1 = none", ROUTES, "2.0", beside=EFFECTS),
    Quantity("route_effect", _TLTO, "float32", "logit", "total effect of an edge of attention", "⟨w, ∂y/∂(attention write)⟩ of those edges, y = answer_logit: to first order what y would lose without it; Σ route_effect + route_effect_other = Σ over heads of head_effect from the baseline zero", ROUTES, "2.0", signed=True, beside=EFFECTS),
    Quantity("route_effect_other", _TLT, "float32", "logit", "total effect of all other edges", "Σ of that effect over the edges that are not among the 16", ROUTES, "2.0", signed=True, beside=EFFECTS),
    Quantity("route_effect_other_size", _TLT, "float32", "logit", "size of the effects of all other edges", "Σ |effect| over the edges that are not among the 16", ROUTES, "2.0", beside=EFFECTS),
    # imported -------------------------------------------------------------------------------------------------------
    Quantity("imported_norm", (ROW,), "float64", "as imported", "imported Activation_Norm", "as given in the CSV", "import", "1.0", log=True),
)
# fmt: on
# only models with experts, with a learned sink or with biases have these
OF_SOME_MODELS = (
    "router_expert",
    "router_weight",
    "peak_expert",
    "attn_null",
    "active_neurons",
    "attn_bias_logit",
    "mlp_bias_logit",
)  # fmt: skip
# of each token what the answer position took from it: tokens of an answer have none, and what is compared is their sum
BY_SOURCE = ("source_logit",)
# ranks of nearly equal neurons or experts change places, and the values of two of them are no measure of noise
_WITHOUT_FLOOR = ("peak_value", "router_weight")


def has_floor(quantity: Quantity) -> bool:
    """Whether `--floor` measures how much a quantity moves by itself, layer by layer."""
    by_layer = quantity.dims[0] in (TOKEN, PROMPT) and quantity.dims[1:2] in ((LAYER,), (DEPTH,))
    measured = quantity.name not in _WITHOUT_FLOOR and quantity.group in SUMMARIES
    return by_layer and quantity.dtype.startswith("float") and measured


def is_streamed(name: str) -> bool:
    """Whether a quantity is too large to be held: its rows go to disk as the layers give them."""
    return name in QUANTITIES and QUANTITIES[name].streamed


def edges(tokens: int) -> int:
    """Pairs (query, key ≤ query) of a prompt."""
    return tokens * (tokens + 1) // 2


# what a noise floor is measured under: nothing of it should matter, and a little of it does
NUISANCES = {
    "batch": "when it is recorded in a batch with others, against alone",
    "padding": "when padding stands on the other side",
    "dtype": "when the parameters are in another dtype",
}


def is_floor(name: str) -> bool:
    """Whether it is the noise floor of a quantity, which does not grow with the prompts."""
    return name in QUANTITIES and QUANTITIES[name].group == FLOOR


def floor_name(name: str, nuisance: str = "") -> str:
    """Name of the noise floor of a quantity under one of `NUISANCES`; "": under all, as format 1 stored it."""
    return f"floor_{nuisance}_{name}" if nuisance else f"floor_{name}"


def _floors(quantity: Quantity) -> list[Quantity]:
    changes = {nuisance: f"largest change of {quantity.name} {words}" for nuisance, words in NUISANCES.items()}
    if quantity.since.startswith("1."):
        changes[""] = f"the largest of the three for {quantity.name}, as format 1 stored it"
    return [
        Quantity(
            floor_name(quantity.name, nuisance),
            quantity.dims[1:2],
            "float32",
            quantity.unit,
            f"noise floor of {quantity.label}" + (f" ({nuisance})" if nuisance else ""),
            f"{change}; first tokens left out",
            FLOOR,
            max(quantity.since, "2.0" if nuisance else "1.1", key=FORMAT_VERSIONS.index),
        )
        for nuisance, change in changes.items()
    ]


QUANTITIES: dict[str, Quantity] = {
    quantity.name: quantity
    for quantity in (*_TABLE, *(floor for one in _TABLE if has_floor(one) for floor in _floors(one)))
}


def quantities_of(groups: tuple[str, ...] | list[str]) -> list[Quantity]:
    """The quantities that the given record groups bring together, in table order.

    "targets" among them stands for targets that are named or explained, which some groups read too.
    """
    return [one for one in _TABLE if one.group in groups and (not one.beside or one.beside in groups)]


WITHOUT_TARGETS = tuple(group for group in RECORD_GROUPS if group not in OF_TARGETS)
