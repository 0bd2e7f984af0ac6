// Streams that are damaged, with right checksums, decode alike, or are refused alike.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { openPack } from '../dist/index.js';
import { make, readBytes, readJson } from './made.mjs';

const folder = process.env.EDGEPACK_DAMAGED ?? make('make_damaged.py');
const files = readJson(folder, 'damaged.json');

for (const { name, refused, location } of files) {
  test(name, async () => {
    const pack = await openPack(readBytes(folder, `${name}.h5`));
    const decoded = pack.decodeChunk(0);
    if (refused) return assert.rejects(decoded, (error) => error.kind === 'layout' && error.location === location);
    const expected = new Float32Array(readBytes(folder, `${name}.pixels`).buffer);
    const found = await decoded;
    assert.ok(found.every((value, n) => Math.abs(value - expected[n]) < 1e-5));
  });
}

after(() => console.table([{ files: files.length, refused: files.filter((one) => one.refused).length }]));
