"""What a trace may hold and at which level it is published: every name once; what is not listed is never published.

An array is named as in memory (`text` stands for `text_bytes` and `text_end`), an attribute by its keys with dots
between, the places of lists left out (`plan.targets.text`). At `aggregate` and `private` no array goes out
itself: those levels name what class means are made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stratoscope import names
from stratoscope.names import AGGREGATE, NO_TEXT, PRIVATE, PROVENANCE, Level
from stratoscope.trace.format.schema import text_dimension

# what the value of an attribute must be to go out; anything else in its place is dropped
NUMBER, FLAG, TEXT, BY_QUANTITY, TEXTS = "a number", "true or false", "a text", "numbers by quantity", "texts"
WORD, VERSION, HASH = r"[A-Za-z][\w.+-]{0,63}", r"\d[\w.+!-]{0,40}", r"[0-9a-f]{64}"
_QUANTISED = rf"(GGUF )?{WORD}(, dequantised)?"
_LENS = r"(logit|jacobian)(, half \d)?"
_KERNELS, _HUB_NAME = r"compiled|none", r"[\w.-]{1,96}(/[\w.-]{1,96})?"
_REVISION = r"[0-9a-f]{7,64}|main|refs/pr/\d{1,6}|v?\d[\d.]{0,20}"
_TOGETHER, _NO_EXPERTS = r"any length|equal length|none", rf"no experts|{WORD}"
_ADDITIONS = r"\(?x \+ (attention|MLP)\)?( \+ (attention|MLP))?"
_REPLAY = r"bit-equal in \d+/\d+ layers(, within rounding in \d+)?"
_LINE = (
    rf"logits unchanged; residual sum {_REPLAY}; (not replayed|[\w -]+ replay( of \d+ prompts?)? within "
    r"[\de.+-]+( \(median\))?); (\d[\d,]* batch(es)? checked|recording not finished)"
)
_WHICH_REPLAY = r"same batch|each prompt alone|the trace on disk: [a-z ]+|[a-z ]+"
ARRAY = ""  # no attribute

_TEXT_THERE, _SHOWN, _MEANS, _NEVER = (
    (PROVENANCE,),
    (PROVENANCE, NO_TEXT),
    (PROVENANCE, NO_TEXT, AGGREGATE, PRIVATE),
    (),
)


@dataclass(frozen=True)
class Field:
    """One name of a trace, and where it goes.

    Attributes
    ----------
    levels
        That keep it.
    form
        Of an attribute: what its value must be; a regular expression where it is none of the kinds above.
    why
        What it says, and so why it goes where it goes.
    """

    levels: tuple[Level, ...]
    form: str
    why: str


_WHO, _WHEN, _TEXT = "says where it was made, or from what", "says when", "is text, or says which"
_ANEW = "is made anew"
_SETTING, _PROOF = "how it was recorded", "what was proved while recording"
_SIZE = "a size, a ratio or a cosine; a class mean of it stays at aggregate"

# fmt: off
_TABLE: tuple[tuple[tuple[Level, ...], str, str, str, str], ...] = (  # levels, form, why, in which attribute, names
    # arrays of tokens and prompts -----------------------------------------------------------------------------------
    (_SHOWN, ARRAY, "which tokens are of one prompt, and in which order", "", "prompt position layer depth"),
    (_TEXT_THERE, ARRAY, "is the text", "", "text"),
    (_TEXT_THERE, ARRAY, _TEXT, "", "token_id char_start char_end span"),
    (_TEXT_THERE, ARRAY, "names a prompt; without text it is numbered", "", "prompt_id"),
    (_TEXT_THERE, ARRAY, "says which prompts belong together", "", "pair group"),
    (_MEANS, ARRAY, "the name of a class, as it was given", "", "prompt_class"),
    (_SHOWN, ARRAY, "a row of an imported CSV", "", "row_token row_layer row_neuron"),
    (_MEANS, ARRAY, _SIZE, "", "imported_norm"),
    (_NEVER, ARRAY, "a further column of a CSV, which may hold anything", "", "column"),
    (_NEVER, ARRAY, "is made from the plan when it is read", "", "opener target lens"),
    # quantities -----------------------------------------------------------------------------------------------------
    (_MEANS, ARRAY, _SIZE, "",
     "neuron_norm mlp_out_norm mlp_write_norm attn_write_norm mlp_write_ratio attn_write_ratio mlp_write_cos "
     "attn_write_cos resid_norm resid_cos"),
    (_SHOWN, ARRAY, "the strongest neurons of a token, from which the token can be looked up", "",
     "peak_neuron peak_value peak_write peak_share peak_explained peak_expert"),
    (_SHOWN, ARRAY, "the experts of a token", "", "router_expert router_weight"),
    ((*_SHOWN, AGGREGATE), ARRAY, "activations of a prompt; class means of them with --neurons only", "",
     "prompt_mean"),
    (_SHOWN, ARRAY, "extremes of a prompt, which tell it apart", "", "prompt_max prompt_min"),
    (_MEANS, ARRAY, "attention of a token and head; a class mean over heads of it stays at aggregate", "",
     "attn_received attn_received_nosink attn_entropy attn_entropy_nosink attn_first attn_distance "
     "attn_distance_nosink attn_null attn_value_norm"),
    (_SHOWN, ARRAY, "attention of every pair of tokens", "", "attention"),
    (_SHOWN, ARRAY, "activations of every neuron at a token", "", "neurons active_neurons"),
    (_SHOWN, ARRAY, "how an answer begins, as numbers", "", "opener_log_odds opens_as_refusal"),
    (_TEXT_THERE, ARRAY, "says with which words an answer begins", "", "refusal_pattern"),
    (_SHOWN, ARRAY, "effects on a logit", "",
     "effect_neuron neuron_effect mlp_effect attn_effect head_effect strongest_position strongest_layer "
     "strongest_neuron strongest_value strongest_effect strongest_logit"),
    (_TEXT_THERE, ARRAY, "ids of tokens", "", "write_token target_token against_token lens_token"),
    (_SHOWN, ARRAY, "what a neuron reads and writes, as numbers", "",
     "write_logit neuron_read read_through read_component"),
    (_SHOWN, ARRAY, "contributions to a logit", "",
     "answer_logit target_logit embed_logit attn_logit mlp_logit head_logit source_logit neuron_logit logit_neuron "
     "other_neurons_logit attn_bias_logit mlp_bias_logit norm_bias_logit head_bias_logit final_scale"),
    (_SHOWN, ARRAY, "how likely tokens are at each depth, without saying which", "",
     "lens_logprob lens_answer_logprob lens_answer_rank lens_target_logprob lens_target_rank lens_target_logit"),
    (_SHOWN, ARRAY, "edges of attention", "",
     "route_source route_head route_weight route_other route_other_size route_bias route_carry route_mid route_mlp "
     "route_effect_source route_effect_head route_effect route_effect_other route_effect_other_size"),
    # root attributes ------------------------------------------------------------------------------------------------
    (_NEVER, ARRAY, _ANEW, "",
     "format format_version state uuid digest checksums recording_sha256 coordinates published"),
    (_MEANS, "real|simulated|imported", "where the numbers come from", "", "source"),
    (_SHOWN, "text|tokenizer", "how token texts are spelled", "", "token_spelling"),
    (_SHOWN, "|".join(names.AXES), "what Neuron_ID of an import is", "", "axis"),
    (_NEVER, ARRAY, _WHEN, "", "created finished resumed merged"),
    (_NEVER, ARRAY, _WHEN, "plan", "date"),
    (_TEXT_THERE, TEXTS, "texts of tokens", "", "token_texts"),
    (_SHOWN, VERSION, "versions of the software", "software",
     "python stratoscope numpy zarr torch transformers tokenizers xarray pandas"),
    (_SHOWN, _KERNELS, "whether small loops were compiled", "software", "kernels"),
    (_SHOWN, WORD, "id and weight of a note; its words are rewritten", "notes", "id severity"),
    (_NEVER, ARRAY, "free text, rewritten by rule", "notes", "text"),
    (_NEVER, ARRAY, "free text, rewritten by rule", "receipt", "limits"),
    (_NEVER, ARRAY, "of an array that another version wrote", "", "unknown_arrays"),
    # the model ------------------------------------------------------------------------------------------------------
    (_MEANS, _HUB_NAME, "name of a hub model; the name of a folder becomes the architecture", "model", "name"),
    (_MEANS, _REVISION, "revision of a hub model; a name that people gave a branch is dropped", "model", "revision"),
    (_MEANS, HASH, "which weights", "model", "weights_sha256"),
    (_MEANS, WORD, "what the model is", "model", "architecture dtype"),
    (_MEANS, _QUANTISED, "what the model is", "model", "quantisation"),
    (_SHOWN, WORD, "what the model is", "model", "attention_implementation"),
    (_MEANS, NUMBER, "sizes of the model", "model", "d_model d_ff n_layers n_heads n_kv_heads vocab context"),
    (_SHOWN, NUMBER, "sizes of the model", "model.mlps", "layers experts expert_width dense_width"),
    (_NEVER, ARRAY, _WHO, "model", "device"),
    (_NEVER, ARRAY, _WHO, "receipt", "device threads"),
    (_SHOWN, HASH, "which tokenizer", "tokenizer", "sha256"),
    (_SHOWN, WORD, "what the tokenizer is", "tokenizer", "class padding_side"),
    (_SHOWN, NUMBER, "size of the vocabulary", "tokenizer", "vocab"),
    (_TEXT_THERE, TEXT, "is text; goes at provenance too with --no-chat-template", "tokenizer", "chat_template"),
    (_TEXT_THERE, TEXT, _TEXT, "tokenizer", "bos_token eos_token"),
    # the plan -------------------------------------------------------------------------------------------------------
    (_SHOWN, WORD, _SETTING, "plan", "record dtype padding_side attention positions baseline"),
    (_SHOWN, WORD, _SETTING, "plan.lens_file", "kind"),
    (_SHOWN, WORD, "the level of what a look-alike is made of", "plan.like", "level"),
    (_SHOWN, _LENS, _SETTING, "plan", "lenses"),
    (_SHOWN, NUMBER, _SETTING, "plan",
     "top_k batch_size window prompts tokens longest_short shortest_long generate seed effect_steps calibration part "
     "part_prompts"),
    (_SHOWN, NUMBER, _SETTING, "plan.lens_file", "rank d_model depths prompts positions"),
    (_SHOWN, FLAG, _SETTING, "plan", "chat"),
    (_SHOWN, FLAG, _SETTING, "plan.generation", "do_sample"),
    (_SHOWN, NUMBER, _SETTING, "plan.generation", "temperature top_k top_p min_p typical_p repetition_penalty"),
    (_SHOWN, _TOGETHER, _SETTING, "plan", "together"),
    (_NEVER, ARRAY, "confirms a guess at the prompts", "plan", "prompts_sha256"),
    (_NEVER, ARRAY, "leads to another file", "plan", "mean_of"),
    (_NEVER, ARRAY, "leads to another file", "plan.like", "sha256"),
    (_NEVER, ARRAY, "leads to another file", "plan.files", "prompt_id file rows bytes sha256 extra_columns columns"),
    (_NEVER, ARRAY, "what a fitted lens was fitted on, and which it is", "plan.lens_file",
     "sha256 weights_sha256 corpora model cells skipped basis software apart outside moved planned unfinished format "
     "format_version tokenizer"),
    (_TEXT_THERE, TEXT, _TEXT, "plan.openers", "text"),
    (_TEXT_THERE, TEXT, _TEXT, "plan", "refusal_patterns targets answer_prefix"),
    (_TEXT_THERE, TEXT, _TEXT, "plan.targets", "text against"),
    (_TEXT_THERE, TEXT, _TEXT, "plan.generation", "stop_strings"),
    (_TEXT_THERE, NUMBER, "ids of tokens", "plan.openers", "token_ids"),
    (_TEXT_THERE, NUMBER, "ids of tokens", "plan.targets", "token_id against_id"),
    (_TEXT_THERE, NUMBER, "ids of tokens", "plan.generation", "eos_token_id"),
    # what was planted into a simulation -----------------------------------------------------------------------------
    (_SHOWN, WORD, "what was planted", "planted", "kind"),
    (_SHOWN, NUMBER, "where it was planted", "planted", "layer neuron head token target depth effect"),
    (_NEVER, ARRAY, "free text, or names prompts", "planted", "measure class prompt"),
    # the receipt ----------------------------------------------------------------------------------------------------
    (_NEVER, ARRAY, "names the prompts on which it was proved", "receipt", "probe_prompts probe_tokens batch"),
    (_NEVER, ARRAY, "names the prompts on which it was proved", "receipt.replays", "prompts"),
    (_NEVER, ARRAY, "names the prompts on which it was proved", "receipt.noise_floor", "prompts"),
    (_NEVER, ARRAY, "free text", "receipt", "checks gates"),
    (_NEVER, ARRAY, "free text", "receipt.head", "norm unembedding logits"),
    (_NEVER, ARRAY, "free text", "receipt.attention_on_probe", "source"),
    (_NEVER, ARRAY, "free text", "receipt.batching", "found_by settings"),
    (_NEVER, ARRAY, "free text", "receipt.noise_floor", "nuisances largest_changes limits"),
    (_NEVER, ARRAY, "free text", "receipt.calibration", "limits"),
    (_NEVER, ARRAY, "free text", "receipt.effects", "logits"),
    (_NEVER, ARRAY, "free text", "receipt.generation", "limits"),
    (_SHOWN, _LINE, _PROOF, "receipt", "receipt_line"),
    (_SHOWN, _REPLAY, _PROOF, "receipt", "residual_replay"),
    (_SHOWN, _ADDITIONS, _PROOF, "receipt", "additions"),
    (_SHOWN, _NO_EXPERTS, _PROOF, "receipt", "experts_implementation"),
    (_SHOWN, _TOGETHER, _PROOF, "receipt.batching", "together"),
    (_SHOWN, _WHICH_REPLAY, _PROOF, "receipt.replays", "replay"),
    (_SHOWN, WORD, _PROOF, "receipt", "attention_implementation dtype changed_implementations"),
    (_SHOWN, WORD, _PROOF, "receipt.replays", "attention"),
    (_SHOWN, WORD, _PROOF, "receipt.noise_floor", "dtypes"),
    (_SHOWN, FLAG, _PROOF, "receipt", "logits_bit_identical embedding_watched"),
    (_SHOWN, FLAG, _PROOF, "receipt.generation", "logits_bit_identical"),
    (_SHOWN, FLAG, _PROOF, "receipt.replays", "median"),
    (_SHOWN, BY_QUANTITY, _PROOF, "receipt.replays", "largest_differences"),
    (_SHOWN, NUMBER, _PROOF, "receipt",
     "unobserved_repeat_max_abs observed_max_abs top1_changes batches tokens sites_per_forward"),
    (_SHOWN, NUMBER, _PROOF, "receipt.replays", "tolerance tokens"),
    (_SHOWN, NUMBER, _PROOF, "receipt.head", "input_scale logit_scale soft_cap"),
    (_SHOWN, NUMBER, _PROOF, "receipt.block_norms", "proved largest_error"),
    (_SHOWN, NUMBER, _PROOF, "receipt.contributions", "error heads_error sources_error neurons_error limit"),
    (_SHOWN, NUMBER, _PROOF, "receipt.lens", "error limit"),
    (_SHOWN, NUMBER, _PROOF, "receipt.routes", "error mlp_error limit"),
    (_SHOWN, NUMBER, _PROOF, "receipt.effects", "largest_error edges_error edges_limit"),
    (_SHOWN, NUMBER, _PROOF, "receipt.reads", "pre_activations not_split largest_error"),
    (_SHOWN, NUMBER, _PROOF, "receipt.generation", "tokens unobserved_repeat_max_abs observed_max_abs top1_changes"),
    (_SHOWN, NUMBER, _PROOF, "receipt.noise_floor", "tokens longest"),
    (_SHOWN, NUMBER, _PROOF, "receipt.attention_on_probe", "layers_without"),
    (_SHOWN, NUMBER, _PROOF, "receipt.attention_on_probe.row_sums", "rows max_error share_of_limit"),
    (_SHOWN, NUMBER, _PROOF, "receipt.attention_on_probe.outputs", "forwards values max_error share_of_limit"),
    (_SHOWN, NUMBER, _PROOF, "receipt.batching",
     "prompt_tokens neighbour_tokens forwards rounding_at_most beside_longer beside_equal_length smallest_batch"),
    # how far total effects can be believed --------------------------------------------------------------------------
    (_SHOWN, WORD, "how far effects can be believed", "receipt.calibration", "baseline"),
    (_SHOWN, WORD, "how far effects can be believed", "receipt.calibration.agreement", "kind baseline"),
    (_SHOWN, NUMBER, "how far effects can be believed", "receipt.calibration", "asked steps floor"),
    (_SHOWN, NUMBER, "how far effects can be believed", "receipt.calibration.agreement",
     "target count decided spearman sign slope"),
    (_NEVER, ARRAY, "names prompts; only how many is told", "receipt.calibration", "prompts"),
    (_NEVER, ARRAY, "single tokens that were ablated", "receipt.calibration.samples",
     "kind prompt position layer index direct"),
    (_NEVER, ARRAY, "single tokens that were ablated", "receipt.calibration.samples.effects",
     "baseline target first_order measured"),
)
# fmt: on

FIELDS: Mapping[str, Field] = {
    f"{attribute}.{name}" if attribute else name: Field(levels, form, why)
    for levels, form, why, attribute, listed_names in _TABLE
    for name in listed_names.split()
}
# from which columns of the weights can be solved, where they are private: name → with what, and what it gives
OF_WEIGHTS: Mapping[str, str] = {
    "peak_write": "peak_write / |peak_value| is the norm of a column of W",
    "neuron_logit": "neuron_logit / the neuron's activation is a column of W along a target's direction",
    "strongest_logit": "strongest_logit / strongest_value is a column of W along a target's direction",
    "neuron_effect": "neuron_effect / the neuron's activation is a column of W along one direction",
    "strongest_effect": "strongest_effect / strongest_value is a column of W along one direction",
    "write_logit": "is a column of W through the unembedding",
    "write_token": "is a column of W through the unembedding",
    "neurons": "neurons and mlp_out_norm of enough tokens give WᵀW",
    "active_neurons": "active neurons and mlp_out_norm of enough tokens give WᵀW",
}
OF_PRIVATE_MODEL = ("model.name", "model.revision", "model.weights_sha256", "tokenizer.sha256")  # say which model


def listed(name: str) -> Field | None:
    """What is stated of a name that a trace holds; None where nothing is, so that it is never published."""
    if names.is_floor(name):  # a floor goes with its quantity
        name = re.sub(rf"^floor_((?:{'|'.join(names.NUISANCES)})_)?", "", name)
    column = name.removesuffix("_bytes").removesuffix("_end")
    if text_dimension(column) is not None:
        name = column.rstrip("0123456789").removesuffix("_") if column.startswith("column_") else column
    return FIELDS.get(name)


def attribute_names(value: Any, path: str = "") -> Iterator[str]:
    """Every nested name in attributes, with dots between the keys; an attribute that is listed whole is one name."""
    is_object = any(name.startswith(f"{path}.") for name in FIELDS)
    is_whole = path in FIELDS and not is_object
    if isinstance(value, Mapping) and not is_whole:
        for key, one in value.items():
            yield from attribute_names(one, f"{path}.{key}" if path else str(key))
    elif not is_whole and isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
        for one in value:
            yield from attribute_names(one, path)
    elif not (is_object and not value):
        yield path


def conforms(value: Any, form: str) -> bool:
    """Whether the value of an attribute is what is stated of it; of a list, whether all of it is."""
    if isinstance(value, list | tuple):
        return all(conforms(one, form) for one in value)
    match form:
        case "a number":
            return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        case "true or false":
            return isinstance(value, bool)
        case "a text":
            return value is None or isinstance(value, str)
        case "numbers by quantity":
            return isinstance(value, Mapping) and all(
                key in names.QUANTITIES and conforms(one, NUMBER) for key, one in value.items()
            )
        case "texts":
            return isinstance(value, Mapping) and all(
                str(key).isdecimal() and isinstance(one, str) for key, one in value.items()
            )
    return isinstance(value, str) and bool(form) and re.fullmatch(form, value, re.ASCII) is not None
