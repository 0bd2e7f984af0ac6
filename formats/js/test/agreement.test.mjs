// Packs of every codec and version decode to what Python decodes.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { openPack, PackError } from '../dist/index.js';
import { isOld, makePacks, readBytes } from './made.mjs';

const TOLERANCE = 1e-5;
const { folder, packs } = makePacks();
const table = [];

function largestDifference(one, other) {
  assert.equal(one.length, other.length);
  return one.reduce((most, value, n) => Math.max(most, Math.abs(value - other[n])), 0);
}

/** Python's NaN comes as null, and its truth values as such. */
function isSame(value, wanted) {
  if (wanted === null) return Number.isNaN(value);
  return typeof wanted === 'string' ? value === wanted : Math.abs(Number(value) - Number(wanted)) < 1e-6;
}

function compareTargets(found, expected) {
  assert.equal(found.length, expected.length);
  found.forEach(({ values, width, ...described }, n) => {
    const { values: wanted, ...facts } = expected[n];
    assert.deepEqual(described, facts);
    assert.equal(values.length, wanted.length);
    assert.ok(Array.from(values).every((value, at) => isSame(value, wanted[at])));
  });
}

for (const facts of packs) {
  test(`pixels of ${facts.name}`, async () => {
    const pack = await openPack(readBytes(folder, `${facts.name}.h5`), { trusted: isOld(facts) });
    const expected = new Float32Array(readBytes(folder, `${facts.name}.pixels`).buffer);
    const [samples, ...shape] = facts.shape;
    const found = await pack.decode(Array.from({ length: samples }, (_, row) => row));
    const difference = largestDifference(found, expected);
    table.push({ pack: facts.name, codec: facts.codec, block: facts.block, shape: facts.shape.join('x'), difference });
    assert.ok(difference < TOLERANCE, `${difference}`);
    const size = shape.reduce((product, length) => product * length, 1);
    assert.deepEqual(await pack.decode(samples - 1), found.slice(-size));
    assert.deepEqual((await pack.decode([samples - 1, 0])).slice(size), found.slice(0, size));
    const last = await pack.decodeChunk(pack.chunks - 1);
    assert.deepEqual(last, found.slice(-last.length));
    pack.close();
  });

  test(`tables of ${facts.name}`, async () => {
    const pack = await openPack(new Blob([readBytes(folder, `${facts.name}.h5`)]), { trusted: isOld(facts) });
    const { header } = pack;
    assert.deepEqual([header.samples, header.channels, header.height, header.width], facts.shape);
    assert.deepEqual([header.codec, header.block, header.colorSpace], [facts.codec, facts.block, facts.color_space]);
    assert.deepEqual([header.formatVersion, header.components], [facts.version, facts.components]);
    assert.deepEqual(header.mean, facts.mean);
    assert.deepEqual(pack.classNames, facts.class_names);
    assert.deepEqual(pack.labels && [...pack.labels], facts.labels);
    assert.equal(header.bits, facts.bits);
    assert.deepEqual([...pack.sourceIndex].map(Number), facts.source_index);
    assert.deepEqual(pack.provenance, facts.provenance);
    const scores = await pack.scores();
    assert.deepEqual(scores && [...scores], facts.scores);
    compareTargets(await pack.targets(), facts.targets);
    pack.close();
  });

  test(`what is kept of ${facts.name}`, async () => {
    const pack = await openPack(readBytes(folder, `${facts.name}.h5`), { trusted: isOld(facts) });
    const { values, kept, tilesDown, tilesAcross, tileHeight, tileWidth } = await pack.coefficients(0);
    assert.equal(values.length, pack.header.channels * tilesDown * tilesAcross * tileHeight * tileWidth);
    assert.ok(values.every((value, n) => value === 0 || kept[n] === 1));
    if (facts.codec !== 'quantized') assert.equal(kept.reduce((sum, one) => sum + one), pack.header.channels * facts.components);
    pack.close();
  });
}

test('files of old versions are opened with trust only', async () => {
  for (const facts of packs.filter(isOld)) {
    const opened = openPack(readBytes(folder, `${facts.name}.h5`));
    await assert.rejects(opened, (error) => error instanceof PackError && /not stored plainly/.test(error.message));
  }
});

test('files of 1.3 are read alike by HDF5', async () => {
  for (const facts of packs.filter((one) => !isOld(one))) {
    const bytes = readBytes(folder, `${facts.name}.h5`);
    const [plain, trusted] = [await openPack(bytes), await openPack(bytes, { trusted: true })];
    assert.deepEqual(await plain.decode(0), await trusted.decode(0));
    assert.deepEqual(plain.header, trusted.header);
    trusted.close();
  }
});

test('a row that is not there is refused', async () => {
  const pack = await openPack(readBytes(folder, 'quantized-fine.h5'));
  for (const row of [-1, 6, 0.5, NaN]) await assert.rejects(pack.decode(row), RangeError);
  await assert.rejects(pack.decodeChunk(1), RangeError);
});

after(() => console.table(table));
