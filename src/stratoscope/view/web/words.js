// Numbers as people read them; each as the function of the same name in words.py writes it.
"use strict";

/** @param {number} value */
function number(value, digits = 3) {
  if (Number.isNaN(value)) return "not known";
  const [size, sign] = [Math.abs(value), value < 0 ? "−" : ""];
  if (size === Infinity) return `${sign}∞`;
  if (size === 0) return "0";
  if (size >= 999_999.5 || size < 9.95e-4) {
    const [mantissa, exponent] = size.toExponential(1).split("e");
    return `${sign}${mantissa.replace(".0", "")}e${Number(exponent)}`.replace("e-", "e−");
  }
  return sign + grouped(size < 10 ** digits ? String(Number(size.toPrecision(digits))) : size.toFixed(0));
}

/** @param {number} share */
function percent(share) {
  if (Number.isNaN(share)) return "not known";
  let [size, bound] = [Math.abs(100 * share), ""];
  if (size === Infinity) return `${number(share)} %`;
  if (size > 0 && size < 0.05) [size, bound] = [0.1, "<"];
  else if (size >= 99.95 && size < 100) [size, bound] = [99.9, ">"];
  else if (size >= 1e6) return `${number(100 * share)} %`;
  const text = size === 0 || size === 100 ? String(size) : grouped(size.toFixed(1));
  return share >= 0 ? `${bound}${text} %` : `${{ "<": ">", ">": "<", "": "" }[bound]}−${text} %`;
}

/** A number of bytes. @param {number} size */
function sizeText(size) {
  if (size < 999.5) return counted(Math.round(size), "byte");
  for (const unit of ["kB", "MB", "GB"]) {
    size /= 1000;
    if (size < 999.5) return `${number(size)} ${unit}`;
  }
  return `${number(size / 1000)} TB`;
}

/** @param {number} ratio */
function times(ratio) {
  if (ratio < 0.05 || !Number.isFinite(ratio)) return `×${number(ratio)}`;
  if (ratio >= 999_500) return `×${number(Math.max(ratio, 1e6))}`;
  if (ratio >= 999.5) return `×${number(ratio / 1000, 2)}k`;
  return `×${ratio.toFixed(ratio >= 3 ? 0 : 1)}`;
}

/** @param {number} count @param {string} noun */
function counted(count, noun) {
  if (count === 1) return `1 ${noun}`;
  const plural = /(ch|s|x)$/.test(noun) ? `${noun}es` : /[^aeiou]y$/.test(noun) ? `${noun.slice(0, -1)}ies` : `${noun}s`;
  return `${grouped(String(count))} ${plural}`;
}

/** Digits with a comma between thousands. @param {string} digits */
function grouped(digits) {
  const [whole, ...decimals] = digits.split(".");
  return [whole.replace(/\B(?=(\d{3})+$)/g, ","), ...decimals].join(".");
}
