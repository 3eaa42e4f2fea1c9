#!/usr/bin/env bash
# Records the pairs with the demo's model and contrasts them; writes report.html and table.csv beside this file.
set -euo pipefail
cd "$(dirname "$0")"
python="${PYTHON:-../../.venv/bin/python}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model=$("$python" -c "from stratoscope.doors.demo import find_model; print(find_model())")
"$python" -m stratoscope capture "$model" --prompts prompts.jsonl --record norms,residual,peaks,prompts,attention -o "$work/pairs.trace"
"$python" -m stratoscope contrast "$work/pairs.trace" --a critical --b neutral -o "$work/report"
cp "$work/report/report.html" "$work/report/table.csv" .
