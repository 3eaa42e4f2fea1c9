"""Every default that a verb and its command share, stated once."""

from __future__ import annotations

from stratoscope.names import (
    NORMS,
    PEAKS,
    PROMPTS,
    RESIDUAL,
    SUMMARIES,
    Axis,
    Baseline,
    Caption,
    How,
    Level,
    Positions,
    Ranking,
    Scale,
    Statistic,
    Theme,
    Unequal,
    Verify,
)

RECORD = (NORMS, RESIDUAL, PEAKS, PROMPTS)
TOP_K = 10
BATCH_SIZE = 8
SEED = 0
DRAWS = 20  # random patches that a claimed one is compared with
HOW: How = "mean"  # what ablating sets neurons and heads to …
ABLATED_POSITIONS: Positions = "all"  # … at which tokens …
ABLATION_DRAWS = 10  # … and how many random neurons, heads, directions and other prompts are drawn
VERIFY: Verify = "sample"

STRONGEST_PER_SIGN = 10  # neurons at tokens of largest total effect that are kept of a prompt, of either sign
WRITES_PER_SIGN = 5  # tokens that are kept of what each of them promotes and demotes
LENS_TOKENS = 5  # likeliest tokens that are kept of what a lens reads …
LENS_POSITIONS = 4  # … at the answer position and the three before it
KEPT_EDGES = 16  # edges of attention that are kept of a token and layer
EFFECT_STEPS = 1  # points on the way from the baseline at which total effects are differentiated: first order
BASELINE: Baseline = "zero"
CALIBRATION = 64  # total effects of each kind that are compared with really ablating

FITTED_TOKENS = 128  # the most of a prompt that a lens is fitted on

GENERATE = 0  # tokens of an answer
OPENERS = ("Sorry", "I cannot", "Sure")  # beginnings of an answer; their log-odds come with every generated answer

MOST_PROMPTS, MOST_OBJECTS = 1_000_000, 3_000_000  # of one file of prompts: rows or lines, and objects of its JSON
PROMPTS_BYTES = 2**30  # the most that a file of prompts may hold, unpacked
UNPACKED_BYTES = 64 * 2**20  # what any file may unpack to, CSV or prompts …
UNPACKED_TIMES = 100  # … and a larger one, as a multiple of its own size

QUANTITY = "mlp_out_norm"
THEME: Theme = "light"
CAPTION: Caption = "below"
SCALE: Scale = "robust"
HEAD = "mean"
FIRST_TOKEN = False  # whether first tokens take part in colour limits and statistics
THRESHOLD = 0.0  # lowest peak that `peaks3d` draws
AXIS: Axis = "unknown"
STRONGEST = 5  # neurons that `top` lists of a prompt
RANKING: Ranking = "write"  # by what it ranks them

ROUTE_EDGES = 150  # of heads that a graph or a page of routes shows, and at most
STILL_ROUTE_EDGES = 50  # that a still picture shows, on which nothing can be pointed at

STATISTIC: Statistic = "prompt_mean"
SPAN = "user"
AVERAGE_GROUPS = True  # whether prompts of one group are one unit of a contrast
UNEQUAL: Unequal = "subsample"
HELD_OUT = 0.0  # of the units of a contrast: all are tested, none only measures how large discoveries are
ALPHA = 0.05  # share of false discoveries of a contrast, and of intervals that miss
FALSE_FINDINGS = 0.05  # to expect of `anomalies` in a trace where nothing is odd: a number, no share
PERMUTATIONS = 1000

COMMIT_SECONDS = 2.0  # a trace being recorded is committed about this often …
COMMIT_SHARE = 0.005  # … but commits never take more than this share of the time …
COMMIT_BYTES = 128 * 2**20  # … and no more than this much waits in memory

SIMULATED_RECORD = SUMMARIES  # it costs nothing to simulate everything
ANOMALY = True  # whether something odd is planted in a simulation
SIMULATED_TARGETS = ("Sorry",)  # whose logits are explained where nobody names one
SIMULATED_PROMPTS = 24  # twelve pairs of twins
SIMULATED_TOKENS = (20, 32)  # of a prompt, fewest and most
SIMULATED_LAYERS = 16
SIMULATED_D_MODEL = 256
SIMULATED_D_FF = 1024
SIMULATED_HEADS = 8
IN_MEMORY_BYTES = 512 * 2**20  # a larger simulation needs an output

LEVEL: Level = "aggregate"  # at which a record is published
CHAT_TEMPLATE = True  # whether the level that keeps text keeps the chat template
FEWEST_PROMPTS = 20  # of a class, of which means are published …
ROUNDED_PROMPTS = 10  # … and to multiples of which their number is rounded
ATTACK_TOKENS = 20  # that norm matching tries to recover, each through the whole vocabulary
EPSILON, DELTA = 1.0, 1e-5  # of a private publication …
CLIP = 1.0  # … in which a prompt counts up to this multiple of the usual distance: less is less noise and more bias
PRIVATE_QUANTITY = "mlp_write_ratio"  # comparable across layers and models; each number more makes all of them noisier
