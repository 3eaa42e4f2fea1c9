"""What a Result may hold and what becomes of it when it is published with its tokens: every name once.

A table is named as in docs/results.md, with `*` for the quantity of `<table>/<quantity>`. A fact is named by its keys
with dots between, `*` for a quantity, the places of lists left out. What is not listed is never published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from stratoscope import names

Rule: TypeAlias = Literal["shown", "text", "token", "prompt", "token id", "target", "label", "words", "weights"]
SHOWN: Rule = "shown"  # a number, a fact, a word of Stratoscope, the name of a class: goes out as it is
TEXT: Rule = "text"  # says what somebody wrote: not without text
TOKEN: Rule = "token"  # the text of a token, `column:position`: its position, else its place in its row, instead
PROMPT: Rule = "prompt"  # the id of a prompt: its number in place of it
TOKEN_ID: Rule = "token id"  # −1 in place of it
TARGET: Rule = "target"  # a token whose logit is explained, in words
LABEL: Rule = "label"  # a quantity in words, which may name a target
WORDS: Rule = "words"  # a sentence that may name tokens, prompts and files
WEIGHTS: Rule = "weights"  # says the size of a column of the weights: not of a private model

_OF_QUANTITIES = ("profiles", "aligned", "tokens", "null", "change", "labels", "quantities")  # what `*` stands behind
COORDINATES = ("layer", "depth", "place")  # numbers of rows, of a dimension of the same name
ARRAY_ATTRIBUTES = ("long_name", "units", "units_compared", "scale")
_COMPARED = "mean_a mean_b difference band_a band_b band g auc t p p_exchange p_family q count_a count_b"
_PLACED = "prompt position layer head neuron expert value typical expected_false_findings found_by quantity"
_MEANS = "attn_direct mlp_direct attn_total mlp_total"


@dataclass(frozen=True)
class Listed:
    """What becomes of a column or a fact: the rule, and of a token the column of its position ("" = none)."""

    rule: Rule
    position: str = ""


# fmt: off
_COLUMNS: tuple[tuple[str, str, Rule, str], ...] = (  # kind, table, rule, columns
    ("contrast", "neurons", SHOWN, "mean_a mean_b difference t df p q p_family g d_z auc count_a count_b"),
    ("contrast", "held_out", SHOWN, "mean_a mean_b difference t df p g d_z auc count_a count_b"),
    ("contrast", "listed", SHOWN, "layer neuron g low high"),
    ("contrast", "contexts", SHOWN, "position value"),
    ("contrast", "contexts", TEXT, "before after"),
    ("contrast", "contexts", TOKEN, "token:position"),
    ("contrast", "contexts", PROMPT, "prompt_id"),
    ("contrast", "chance", SHOWN, "largest_g"),
    ("contrast", "direction", SHOWN, "auc low high p_family"),
    ("contrast", "profiles/*", SHOWN, _COMPARED),
    ("contrast", "aligned/*", SHOWN, "difference t p q units"),
    ("contrast", "tokens", SHOWN, "position_a position_b equal before first"),
    ("contrast", "tokens", TOKEN, "text_a:position_a text_b:position_b"),
    ("contrast", "tokens/*", SHOWN, "a b difference"),
    ("diff", "prompts", SHOWN, "prompt_a prompt_b by_id"),
    ("diff", "prompts", PROMPT, "prompt_id"),
    ("diff", "tokens", SHOWN, "position_a position_b equal before first template"),
    ("diff", "tokens", PROMPT, "prompt_id"),
    ("diff", "tokens", TOKEN, "text:position_a text_a:position_a text_b:position_b"),
    ("diff", "tokens/*", SHOWN, "a b difference ratio times_floor"),
    ("diff", "profiles/*", SHOWN,
     "size_median size_95 size_mean size_largest times_median times_95 times_largest relative_median share_changed "
     "share_above floor_relative"),
    ("diff", "neurons", SHOWN, "difference largest times_floor column_changed found_again same"),
    ("diff", "neurons", WEIGHTS, "column_norm_a column_norm_b column_most_a column_most_b"),
    ("diff", "listed", SHOWN, "layer neuron"),
    ("diff", "contributions", SHOWN,
     "a b difference part_text part_layer total unexplained final_scale_a final_scale_b"),
    ("diff", "contributions", TARGET, "target_text"),
    ("diff", "effects", SHOWN, "attention_a attention_b attention_difference mlp_a mlp_b mlp_difference"),
    ("diff", "effects", TARGET, "target_text"),
    ("diff", "claims", SHOWN, "layer neuron old new line difference largest times_floor ratio rank verdict why"),
    ("diff", "claims", WEIGHTS, "column_norm_a column_norm_b"),
    ("diff", "null", SHOWN, "kl"),
    ("diff", "null/*", SHOWN, "random real rank"),
    ("anomalies", "findings", SHOWN, f"{_PLACED} of_model also"),
    ("anomalies", "findings", PROMPT, "prompt_id"),
    ("anomalies", "findings", TOKEN, "token:position"),
    ("anomalies", "findings", WORDS, "words"),
    ("anomalies", "members", SHOWN, f"{_PLACED} finding"),
    ("anomalies", "members", PROMPT, "prompt_id"),
    ("anomalies", "members", TOKEN, "token:position"),
    ("anomalies", "usual", SHOWN, "tokens prompts ratio"),
    ("anomalies", "usual", WORDS, "words"),
    ("anomalies", "detectors", SHOWN, "name quantity looked_at what found_from why_not"),
    ("anomalies", "pictures", SHOWN, "quantity columns first values rows mark"),
    ("anomalies", "pictures", TOKEN, "labels"),
    ("suppression", "prompts", SHOWN, "prompt_class final_scale"),
    ("suppression", "prompts", PROMPT, "prompt_id"),
    ("suppression", "prompts", TEXT, "target against"),
    ("suppression", "sum", SHOWN, "embedding attention mlp biases norm_bias head_bias sum model error sizes"),
    ("suppression", "depth", SHOWN, _MEANS),
    ("suppression", "means", SHOWN,
     f"{_MEANS} attn_direct_band mlp_direct_band attn_total_band mlp_total_band prompt_class prompts"),
    ("suppression", "neurons", SHOWN,
     "layer neuron position value total direct in_prompts mean write_logit read source_position source_read "
     "source_share source_through"),
    ("suppression", "neurons", PROMPT, "prompt_id"),
    ("suppression", "neurons", TEXT, "before after write_token"),
    ("suppression", "neurons", TOKEN, "token:position source_token:source_position"),
    ("suppression", "neurons", TOKEN_ID, "write_token_id"),
    ("suppression", "direct_neurons", SHOWN, "layer neuron direct"),
    ("suppression", "heads", SHOWN, "layer head total direct source_position source_logit source_share"),
    ("suppression", "heads", TOKEN, "source_token:source_position"),
    ("suppression", "direct_compared", SHOWN, f"layer part {_COMPARED}"),
    ("suppression", "total_compared", SHOWN, f"layer part {_COMPARED}"),
    ("suppression", "heads_compared", SHOWN, f"layer head {_COMPARED}"),
    ("suppression", "calibration", SHOWN,
     "kind baseline count decided spearman spearman_low spearman_high sign sign_low sign_high slope slope_low "
     "slope_high calibrated"),
    ("compare", "tokens", SHOWN, "position_a position_b equal before first rarely_seen predicts"),
    ("compare", "tokens", TOKEN, "text_a:position_a text_b:position_b"),
    ("compare", "tokens", TOKEN_ID, "span template"),
    ("compare", "tokens/*", SHOWN, "a b difference"),
    ("compare", "others", SHOWN, "prompt_a prompt_b cells as_strong largest"),
    ("compare", "others", PROMPT, "prompt_id_a prompt_id_b"),
    ("compare", "one_list_only", SHOWN, "in_b column layer neuron expert value write at_least"),
    ("routes", "edges", SHOWN, "to_position to_depth from_position from_depth kind head weight flow covered"),
    ("routes", "nodes", SHOWN, "position depth flow rest"),
    ("routes", "depths", SHOWN, "depth there in_view"),
    ("routes", "tokens", SHOWN, "position"),
    ("routes", "tokens", TOKEN, "text:position"),
    ("lint", "findings", SHOWN, "id check severity why page"),
    ("lint", "findings", WORDS, "text"),
    ("patch-null", "kl", SHOWN, "random claimed"),
    ("patch-null", "prompts", SHOWN, "prompt tokens"),
    ("patch-null", "tokens", SHOWN, "token"),
    ("patch-null", "change/*", SHOWN, "random claimed"),
)
_ASKED = "quantity layers span seed alpha permutations unequal groups"
_FOUND = "tested discoveries family_wise"
_EFFECT = "power tests p g units_vary d_z correlation"
_FACTS: tuple[tuple[str, str, Rule, str], ...] = (  # kind, path in front, rule, keys
    ("contrast", "parameters", SHOWN, f"a b statistic {_ASKED} held_out"),
    ("contrast", "parameters", TEXT, "target"),
    ("contrast", "summary", LABEL, "labels.*"),
    ("contrast", "summary", SHOWN, "a b design test unequal units units_tested units_held_out"),
    ("contrast", "summary.neurons", SHOWN,
     f"{_FOUND} share_p_below_alpha estimates measured confirmed listed interval_level arrangements all_arrangements "
     "context"),
    ("contrast", "summary.neurons.would_find", SHOWN, _EFFECT),
    ("contrast", "summary.neurons.chance", SHOWN, "largest_g largest_g_95 neurons units sentence"),
    ("contrast", "summary.direction", SHOWN, "layers beyond_chance largest_auc needed_auc labellings units"),
    ("contrast", "summary.profiles", SHOWN, f"quantities units fewest_units {_FOUND} band"),
    ("contrast", "summary.profiles.would_find", SHOWN, _EFFECT),
    ("contrast", "summary.aligned", SHOWN,
     "quantity noun units fewest_units most_units tested discoveries would_find_d_z would_find_d_z_fewest "
     "largest_before_edit"),
    ("contrast", "summary.aligned", TEXT, "first_pair"),
    ("diff", "parameters", SHOWN, "quantity layers claims null seed"),
    ("diff", "parameters", PROMPT, "prompt"),
    ("diff", "summary", SHOWN,
     "pairs matched_by_id edited only_in_a only_in_b tokens models dtypes same_weights known_weights floor "
     "floor_holds_dtype identical alike unlike repeats beyond"),
    ("diff", "summary.exact", SHOWN, "numbers changed equal first same_there other_there share_there share_after"),
    ("diff", "summary.quantities.*", SHOWN,
     "row_kind identical largest_difference median_times_floor largest_times_floor largest_at share_above_floor "
     "share_above_by_chance most_by_chance hidden"),
    ("diff", "summary.neurons", SHOWN,
     "refused prompts layers compared above_floor moved changed_themselves of_a_layer columns_seen columns_tolerance "
     "columns_changed columns_changed_in lowest_share_found"),
    ("diff", "summary.explained", SHOWN, "refused contributions effects unexplained calibration"),
    ("diff", "summary.explained", TARGET, "targets"),
    ("diff", "summary", SHOWN, "explained"),  # None where no logit is explained
    ("diff", "summary.claims", SHOWN, "claims verdicts neurons_of_a_layer elsewhere causality"),
    ("diff", "summary.null", SHOWN, "draws prompts quantities kl"),
    ("anomalies", "parameters", SHOWN, "false_findings reference"),
    ("anomalies", "summary", SHOWN, "findings of_model listed expected_false_findings detectors by_detector"),
    ("suppression", "parameters", SHOWN, "prompt_class groups unequal alpha permutations seed"),
    ("suppression", "parameters", PROMPT, "prompt"),
    ("suppression", "parameters", TEXT, "target"),
    ("suppression", "summary", TARGET, "target"),
    ("suppression", "summary", PROMPT, "prompt"),
    ("suppression", "summary", TEXT, "asked"),
    ("suppression", "summary", SHOWN,
     "prompts logit classes direct total reads baseline steps calibration not_calibrated simulated a b design units "
     "test compared"),
    ("compare", "parameters", SHOWN, "quantity layers span"),
    ("compare", "parameters", PROMPT, "prompt"),
    ("compare", "parameters", TEXT, "target"),
    ("compare", "summary", PROMPT, "prompts"),
    ("compare", "summary", LABEL, "label"),
    ("compare", "summary", WORDS, "called"),
    ("compare", "summary", SHOWN,
     "classes one_trace one_model has_classes simulated quantity doubt unit formula spelling rows prompts_of_trace "
     "columns lengths before others lists"),
    ("compare", "summary.difference", SHOWN, "tokens cells differ strong_from strong"),
    ("compare", "summary.difference.largest", SHOWN, "column position_a position_b layer a b difference"),
    ("compare", "summary.difference.largest", TEXT, "token"),
    ("routes", "parameters", SHOWN, "token edges first_token"),
    ("routes", "parameters", PROMPT, "prompt"),
    ("routes", "parameters", TEXT, "target"),
    ("routes", "summary", PROMPT, "prompt"),
    ("routes", "summary", TARGET, "target"),
    ("routes", "summary", SHOWN,
     "token tokens layers covered rest first_token bias edges not_calibrated unsplit limits"),
    ("lint", "summary", SHOWN, "checks warnings findings"),
    ("patch-null", "parameters", SHOWN, "claims draws seed"),
    ("patch-null", "summary", SHOWN, "quantities how patches rerun"),
)
# fmt: on

COLUMNS: Mapping[tuple[str, str, str], Listed] = {
    (kind, table, column.partition(":")[0]): Listed(rule, column.partition(":")[2])
    for kind, table, rule, columns in _COLUMNS
    for column in columns.split()
}
FACTS: Mapping[tuple[str, str], Listed] = {
    (kind, f"{path}.{key}"): Listed(rule) for kind, path, rule, keys in _FACTS for key in keys.split()
}
OF_WEIGHTS = {  # kinds that are of columns of the weights as a whole: with a private model none goes out
    "suppression": "what a neuron does to a logit, over its activation, is a column of W along the target's direction",
}
KINDS = tuple(dict.fromkeys(kind for kind, *_ in _COLUMNS))


def general(path: str, separator: str) -> str:
    """A name with `*` in the place of the quantity that a part of a table, or of the facts, is of."""
    parts = path.split(separator)
    of_quantity = [False, *(before in _OF_QUANTITIES for before in parts)]
    return separator.join(
        "*" if of and part in names.QUANTITIES else part for of, part in zip(of_quantity, parts, strict=False)
    )
