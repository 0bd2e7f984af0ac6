// The malformed files of tests/formats are refused as Python refuses them.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { openPack, PackError } from '../dist/index.js';
import { isPlain, make, readBytes, readJson } from './made.mjs';

const folder = process.env.EDGEPACK_MALFORMED ?? make('make_malformed.py');
const files = readJson(folder, 'malformed.json');
// HDF5, which reads files that are trusted, does not tell these from other damage.
const OF_ANOTHER_KIND = /test_external_storage|test_filters_switched_off|test_scores_that_the_file_does_not_hold/;
const counts = { files: files.length, plain: 0, 'same verdict': 0, 'same kind': 0, 'same place': 0 };

/** How a file is refused; null where it is read to the end. */
async function refusal(bytes, options) {
  try {
    const pack = await openPack(bytes, options);
    for (let chunk = 0; chunk < pack.chunks; chunk++) await pack.decodeChunk(chunk);
    await pack.scores();
    await pack.targets();
    pack.close();
    return null;
  } catch (error) {
    if (error instanceof PackError) return error;
    throw error;
  }
}

test('the table is there', () => assert.ok(files.length > 500, `${files.length}`));

for (const { name, test: from, plain, kind, location, sound } of files) {
  test(`${name}, ${from}`, async () => {
    const bytes = readBytes(folder, name);
    const error = await refusal(bytes);
    if (plain) counts.plain++;
    if (kind !== 'not-a-pack') assert.equal(isPlain(error), plain, error?.message);
    if (sound) assert.equal(plain ? error : await refusal(bytes, { trusted: true }), null);
    if (kind === undefined) return;
    const found = plain ? error : await refusal(bytes, { trusted: true });
    assert.ok(error, 'not refused');
    assert.ok(found, 'not refused with trust');
    counts['same verdict']++;
    if (found.kind === kind) counts['same kind']++;
    if (found.location === location) counts['same place']++;
    if (!OF_ANOTHER_KIND.test(from)) assert.equal(found.kind, kind, found.message);
    assert.equal(found.location, location, found.message);
  });
}

after(() => console.table([counts]));
