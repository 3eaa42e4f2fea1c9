"""Stratoscope: record what a transformer does with every token, in every layer, in every neuron, and look at it.

The whole public interface is `__all__`. Each name is imported when it is first used, so `import stratoscope` is
instant and needs neither torch nor a plotting library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stratoscope.version import __version__ as __version__

_HOME = {  # public name -> module that defines it
    "capture": "stratoscope.recorder.capture",
    "plan_capture": "stratoscope.recorder.capture",
    "simulate": "stratoscope.recorder.simulate",
    "import_csv": "stratoscope.trace.csv.read",
    "explain": "stratoscope.probe.explain",
    "export_csv": "stratoscope.trace.export.csv",
    "fit_lens": "stratoscope.probe.lens.fit_lens",
    "merge": "stratoscope.trace.write.merge",
    "publish": "stratoscope.publish.publish",
    "open_trace": "stratoscope.trace.read.reader",
    "info": "stratoscope.trace.info.facts",
    "attention_matrix": "stratoscope.trace.export.pairs",
    "prompt": "stratoscope.trace.export.one_prompt",
    "to_frame": "stratoscope.trace.export.frame",
    "anomalies": "stratoscope.analysis.anomalies.anomalies",
    "contrast": "stratoscope.analysis.contrast.contrast",
    "comparison": "stratoscope.analysis.compare.comparison",
    "diff": "stratoscope.analysis.diff.diff",
    "audit": "stratoscope.publish.audit.audit",
    "lint": "stratoscope.analysis.lint.lint",
    "suppression": "stratoscope.analysis.suppression.suppression",
    "top": "stratoscope.analysis.top.top",
    "patch_null": "stratoscope.probe.null",
    "ablate": "stratoscope.probe.ablation.ablate",
    "save_result": "stratoscope.view.report.save",
    "open_result": "stratoscope.analysis.results.result",
    "heatmap": "stratoscope.view.maps.heatmap",
    "engagement": "stratoscope.view.maps.engagement",
    "route_graph": "stratoscope.analysis.routes.graph",
    "routes": "stratoscope.view.routes.routes",
    "compare": "stratoscope.view.maps.compare",
    "peaks3d": "stratoscope.view.peaks3d.peaks3d",
    "lens": "stratoscope.view.lens.lens",
    "portable": "stratoscope.trace.export.portable",
    "Prompt": "stratoscope.recorder.prompts.prompt",
    "StratoscopeError": "stratoscope.errors",
}

__all__ = ["Prompt", "StratoscopeError", "ablate", "anomalies", "attention_matrix", "audit", "capture", "compare",
           "comparison", "contrast", "diff", "engagement", "explain", "export_csv", "fit_lens", "heatmap",
           "import_csv", "info", "lens", "lint", "merge", "open_result", "open_trace", "patch_null", "peaks3d",
           "plan_capture", "portable", "prompt", "publish", "route_graph", "routes", "save_result", "simulate",
           "suppression", "to_frame", "top"]  # fmt: skip

if TYPE_CHECKING:
    from stratoscope.analysis.anomalies.anomalies import anomalies
    from stratoscope.analysis.compare.comparison import comparison
    from stratoscope.analysis.contrast.contrast import contrast
    from stratoscope.analysis.diff.diff import diff
    from stratoscope.analysis.lint.lint import lint
    from stratoscope.analysis.results.result import open_result
    from stratoscope.analysis.routes.graph import route_graph
    from stratoscope.analysis.suppression.suppression import suppression
    from stratoscope.analysis.top.top import top
    from stratoscope.errors import StratoscopeError
    from stratoscope.probe.ablation.ablate import ablate
    from stratoscope.probe.explain import explain
    from stratoscope.probe.lens.fit_lens import fit_lens
    from stratoscope.probe.null import patch_null
    from stratoscope.publish.audit.audit import audit
    from stratoscope.publish.publish import publish
    from stratoscope.recorder.capture import capture, plan_capture
    from stratoscope.recorder.prompts.prompt import Prompt
    from stratoscope.recorder.simulate import simulate
    from stratoscope.trace.csv.read import import_csv
    from stratoscope.trace.export.csv import export_csv
    from stratoscope.trace.export.frame import to_frame
    from stratoscope.trace.export.one_prompt import prompt
    from stratoscope.trace.export.pairs import attention_matrix
    from stratoscope.trace.export.portable import portable
    from stratoscope.trace.info.facts import info
    from stratoscope.trace.read.reader import open_trace
    from stratoscope.trace.write.merge import merge
    from stratoscope.view.lens.lens import lens
    from stratoscope.view.maps.compare import compare
    from stratoscope.view.maps.engagement import engagement
    from stratoscope.view.maps.heatmap import heatmap
    from stratoscope.view.peaks3d.peaks3d import peaks3d
    from stratoscope.view.report.save import save_result
    from stratoscope.view.routes.routes import routes


# the folder is called as the verb in it: Python puts it here when it is first imported, and not again
import_module("stratoscope.publish")
globals().pop("publish", None)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'stratoscope' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
