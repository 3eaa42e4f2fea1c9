import sys

sys.path[:0] = ["/work/wt/pictures/tests", "/work/wt/pictures/tests/view"]
from target_traces import explained_trace

import stratoscope

t = explained_trace("mlp_logit", lengths=(300,), layers=30)
stratoscope.heatmap(t, "/tmp/pictures/l300.png", quantity="mlp_logit", overwrite=True, theme="dark")
t = explained_trace("mlp_logit", lengths=(3000,), layers=30)
stratoscope.heatmap(t, "/tmp/pictures/l3000.png", quantity="mlp_logit", overwrite=True)
t = explained_trace("mlp_logit", "target_logit", lengths=(3, 3), layers=30)
stratoscope.heatmap(t, "/tmp/pictures/l3.png", quantity="mlp_logit", overwrite=True)
