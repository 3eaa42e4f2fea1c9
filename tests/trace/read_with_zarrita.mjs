// Reads every array of a trace with zarrita.js: node read_with_zarrita.mjs MODULE TRACE OUT NAME…
// Writes OUT/NAME.bin, the numbers in C order, and prints {NAME: {shape}}.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

globalThis.Float16Array ??= class Float16Array extends Uint16Array {}; // Node before 24 has none; its bits will do

const [module, trace, out, ...names] = process.argv.slice(2);
const zarr = await import(pathToFileURL(module));

class Files {
  async get(key) {
    try { return new Uint8Array(fs.readFileSync(path.join(trace, key))); } catch { return undefined; }
  }
  async getRange(key, range) {
    const content = await this.get(key);
    if (content === undefined) return undefined;
    if ("suffixLength" in range) return content.slice(content.length - range.suffixLength);
    return content.slice(range.offset, range.offset + range.length);
  }
}

const root = zarr.root(new Files());
const told = {};
for (const name of names) {
  const array = await zarr.open.v3(root.resolve(name), { kind: "array" });
  const { data, shape } = await zarr.get(array);
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  fs.writeFileSync(path.join(out, `${name}.bin`), bytes);
  told[name] = { shape };
}
console.log(JSON.stringify(told));
