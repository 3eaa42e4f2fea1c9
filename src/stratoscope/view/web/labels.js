// Labels of tokens as a browser can draw them: what none of its fonts has is written as its code point, as in every picture.
"use strict";

const NO_CHARACTER = "\u{10FFFE}"; // no font has it: what is drawn for it is what stands for a missing glyph
const LONGEST_LABEL = 14; // characters, as `words.WIDTH`
/** @type {Map<string, boolean>} */
const glyphs = new Map();
/** @type {CanvasRenderingContext2D | null} */
let pen = null;
let missingGlyph = "";

/** Whether a font of this browser has a character. @param {string} char */
function hasGlyph(char) {
  if (char < "\u0250") return true;
  const known = glyphs.get(char);
  if (known !== undefined) return known;
  if (!pen) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [28, 28];
    pen = canvas.getContext("2d", { willReadFrequently: true });
    missingGlyph = pixelsOf(NO_CHARACTER);
  }
  const found = pixelsOf(char) !== missingGlyph;
  glyphs.set(char, found);
  return found;
}

/** A character as pixels. @param {string} char */
function pixelsOf(char) {
  const context = /** @type {CanvasRenderingContext2D} */ (pen);
  context.clearRect(0, 0, 28, 28);
  context.font = `18px ${getComputedStyle(document.body).fontFamily}`;
  context.fillText(char, 4, 21);
  return context.getImageData(0, 0, 28, 28).data.join();
}

/** The label of a token in which each character can be seen; as `words.drawable` has it. @param {string} text */
function tokenLabel(text) {
  return legible(text, LONGEST_LABEL);
}

/**
 * A text in which each character can be seen.
 * @param {string} text
 * @param {number} most characters of one that code points have made longer; its middle is left out
 */
function legible(text, most = Infinity) {
  const missing = (char) => !/[\p{M}\p{Cf}]/u.test(char) && !hasGlyph(char);
  if (![...text].some(missing)) return text;
  /** @type {string[]} */
  const parts = [];
  for (const char of text.replace(/^[\u2068\u2069]+|[\u2068\u2069]+$/g, "")) {
    const shown = missing(char) ? codePoint(char) : char;
    const apart = shown.startsWith("U+") && parts.length && parts[parts.length - 1].trimStart().startsWith("U+");
    parts.push(apart ? ` ${shown}` : shown);
  }
  const label = shortened(parts, most);
  return /[\p{Script=Hebrew}\p{Script=Arabic}]/u.test(label) ? `\u2068${label}\u2069` : label;
}

/** @param {string} char */
function codePoint(char) {
  return `U+${/** @type {number} */ (char.codePointAt(0)).toString(16).toUpperCase().padStart(4, "0")}`;
}

/** Parts joined, with the middle ones left out where they are longer. @param {string[]} parts @param {number} most */
function shortened(parts, most) {
  const whole = parts.join("");
  if (whole.length <= most || parts.length === 1) return whole;
  const head = taken(parts, Math.floor(most / 2));
  const tail = taken(parts.slice(head.length).reverse(), most - 1 - head.join("").length).reverse();
  return `${head.join("")}…${tail.join("").trimStart()}`;
}

/** The longest run of parts from the start that fits, never fewer than one. @param {string[]} parts @param {number} room */
function taken(parts, room) {
  let length = 0;
  const end = parts.findIndex((part, index) => (length += part.length) > room && index > 0);
  return end < 0 ? parts : parts.slice(0, end);
}

/** A label for the axes of a scene, which know `<b>` but no `&lt;`; as `figure.axis_label`. @param {string} text */
function axisLabel(text) {
  return text.replace(/</g, "<\u200b");
}

/** Lines of at most so many characters. @param {string} words @param {number} most */
function wrapped(words, most) {
  const lines = [""];
  for (const word of words.split(/\s+/)) {
    const last = lines[lines.length - 1];
    if (last && last.length + word.length >= most) lines.push(word);
    else lines[lines.length - 1] = last ? `${last} ${word}` : word;
  }
  return lines;
}
