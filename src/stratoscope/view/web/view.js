// Reads the bytes of a ViewSpec, which `view/spec/file.py` writes and docs/viewspec.md describes.
"use strict";

const VIEW_VERSION = "2.0";
const VIEW_HEADER = "stratoscope-view\n";
const VIEW_ALIGNED = 8; // bytes: where each buffer begins
/** @type {[string, typeof Float32Array | typeof Float64Array | typeof Int32Array | typeof Uint8Array][]} */
const VIEW_DTYPES = [["<f4", Float32Array], ["<f8", Float64Array], ["<i4", Int32Array], ["|u1", Uint8Array]];
const VIEW_ARRAYS = new Map(VIEW_DTYPES);

/**
 * The ViewSpec that a page holds as base64.
 * @param {string} base64
 */
function readView(base64) {
  let text;
  try {
    text = atob(base64);
  } catch {
    throw noView("it is no base64");
  }
  return readViewBytes(Uint8Array.from(text, (char) => char.charCodeAt(0)));
}

/**
 * The ViewSpec in bytes: its JSON with typed arrays in place of the references to buffers, of two axes an array of rows.
 * They are views of the bytes, which are copied only where they begin at a place at which no number may.
 * @param {ArrayBuffer | Uint8Array<ArrayBuffer>} data
 * @returns {spec.ViewSpec}
 */
function readViewBytes(data) {
  let bytes = data instanceof Uint8Array ? data : new Uint8Array(data);
  if (bytes.byteOffset % VIEW_ALIGNED) bytes = bytes.slice();
  const start = VIEW_HEADER.length + 8;
  const header = String.fromCharCode(...bytes.subarray(0, VIEW_HEADER.length));
  if (header !== VIEW_HEADER) throw noView("it does not begin as one");
  if (bytes.length < start) throw noView("it is cut off");
  const body = start + Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(VIEW_HEADER.length, true));
  if (body > bytes.length) throw noView("it is cut off");
  if (body % VIEW_ALIGNED) throw noView("its JSON does not end where a buffer may begin");
  let document;
  try {
    document = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(start, body)));
  } catch {
    throw noView("its JSON cannot be read");
  }
  const { view_version, view, buffers } = document ?? {};
  if (view_version !== VIEW_VERSION) {
    throw noView(`it is of version ${view_version}, and here ${VIEW_VERSION} is known`);
  }
  if (!Array.isArray(buffers) || typeof view !== "object" || view === null) throw noView("it does not say what it is");
  putIn(view, viewArrays(buffers, bytes, body));
  return view;
}

/** @param {string} what */
function noView(what) {
  return new Error(`no ViewSpec: ${what}`);
}

/**
 * The buffers, which must lie one after the other and end with the bytes.
 * @param {any[]} index
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @param {number} offset where they begin
 */
function viewArrays(index, bytes, offset) {
  const start = offset;
  const arrays = index.map((entry, place) => {
    const { dtype, shape, offset: claimed } = entry ?? {};
    const kind = VIEW_ARRAYS.get(dtype);
    if (!kind) throw noView(`buffer ${place} is of an unknown type`);
    const sizes = Array.isArray(shape) && shape.every((size) => Number.isInteger(size) && size >= 0) ? shape : [];
    if (sizes.length < 1 || sizes.length > 2 || sizes[1] === 0) throw noView(`buffer ${place} has no shape`);
    const [rows, columns = 1] = sizes;
    const size = rows * columns * kind.BYTES_PER_ELEMENT;
    if (claimed !== offset - start) throw noView(`buffer ${place} does not lie where it should`);
    if (offset + size > bytes.length) throw noView(`buffer ${place} is cut off`);
    const flat = new kind(bytes.buffer, bytes.byteOffset + offset, rows * columns);
    offset += Math.ceil(size / VIEW_ALIGNED) * VIEW_ALIGNED;
    if (sizes.length === 1) return flat;
    return Array.from({ length: rows }, (_, row) => flat.subarray(row * columns, (row + 1) * columns));
  });
  if (offset > bytes.length) throw noView("it is cut off");
  if (offset < bytes.length) throw noView("something follows its last buffer");
  return arrays;
}

/**
 * Put the arrays where a view refers to them.
 * @param {any} view
 * @param {ReturnType<typeof viewArrays>} arrays
 */
function putIn(view, arrays) {
  const nodes = [view]; // grows while it is walked: no depth is too deep
  for (const node of nodes) {
    for (const [key, item] of Object.entries(node)) {
      if (typeof item !== "object" || item === null) continue;
      if (!Object.hasOwn(item, "$buffer")) nodes.push(item);
      else if (!Number.isInteger(item.$buffer) || !arrays[item.$buffer]) throw noView(`${key} is no buffer`);
      else node[key] = arrays[item.$buffer];
    }
  }
}
