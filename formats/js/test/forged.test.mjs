// Of packs with forged metadata and right checksums the same ones are found not to be stored plainly.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openPack, PackError } from '../dist/index.js';
import { isPlain, make, readBytes, readJson } from './made.mjs';

const folder = process.env.EDGEPACK_FORGED ?? make('make_forged.py');
const files = readJson(folder, 'forged.json');

test('forged metadata', async () => {
  for (const { name, why } of files) {
    const error = await openPack(readBytes(folder, `${name}.h5`)).then(() => null, (error) => error);
    assert.ok(error === null || error instanceof PackError, `${name}: ${error?.stack}`);
    assert.equal(isPlain(error), why === null, `${name}: ${why}, ${error?.message}`);
  }
  const refused = files.filter(({ why }) => why).length;
  console.table([{ files: files.length, refused }]);
  assert.ok(refused > 200);
});
