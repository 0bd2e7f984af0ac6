// The page, in Chromium: a pack of each codec is dropped on it, and its images are seen.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { browse, CHROMIUM, PATIENCE, VIEWER } from './browser.mjs';
import { isOld, makePacks } from './made.mjs';

const skip = !existsSync(CHROMIUM) && `no Chromium at ${CHROMIUM}`;
const DROPPED = /^edgepack-1\.2-(quantized|sparse-f32)$|^edgepack-1\.3-(quantized.*|sparse-f16|sparse-f32-gzip|targets)$|^no-classes$|^quantized-full/;
const { folder, packs } = skip ? { folder: '', packs: [] } : makePacks();
const shots = process.env.EDGEPACK_PICTURES;
let browser;

before(async () => {
  if (!skip) browser = await browse();
});
after(() => browser?.close());

/** Open the page, and note what goes wrong on it and what it asks of others. */
async function openPage(width = 1000) {
  const page = await browser.newPage();
  const seen = { errors: [], requests: [] };
  page.on('pageerror', (error) => seen.errors.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && seen.errors.push(message.text()));
  page.on('request', (request) => /^(file|blob|data):/.test(request.url()) || seen.requests.push(request.url()));
  page.setDefaultTimeout(PATIENCE);
  await page.setViewport({ width, height: 800 });
  await page.goto(VIEWER);
  return { page, seen };
}

/** Drop a file on the page, and wait until it is open or refused. */
async function drop(page, name, bytes) {
  const content = Buffer.from(bytes).toString('base64');
  await page.evaluate((name, content) => {
    const transfer = new DataTransfer();
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name));
    document.body.dataset.state = 'dropped';
    document.dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }, name, content);
  return settled(page);
}

async function settled(page) {
  await page.waitForFunction(() => ['open', 'refused'].includes(document.body.dataset.state));
  return page.evaluate(() => document.body.dataset.state);
}

/** How many images are on the page, and the bytes red, green and blue of the first. */
const gridOf = (page) =>
  page.evaluate(() => {
    const canvases = [...document.querySelectorAll('#grid canvas')];
    const { width, height } = canvases[0];
    const { data } = canvases[0].getContext('2d').getImageData(0, 0, width, height);
    return { count: canvases.length, width, height, bytes: [...data].filter((_, n) => n % 4 < 3) };
  });

function expectedBytes(facts) {
  const pixels = new Float32Array(new Uint8Array(readFileSync(join(folder, `${facts.name}.pixels`))).buffer);
  const [, channels, height, width] = facts.shape;
  const plane = height * width;
  return Array.from({ length: 3 * plane }, (_, n) => 255 * pixels[(channels < 3 ? 0 : n % 3) * plane + Math.floor(n / 3)]);
}

for (const facts of packs.filter(({ name }) => DROPPED.test(name))) {
  test(`${facts.name} is dropped and seen`, { skip }, async () => {
    const { page, seen } = await openPage();
    const state = await drop(page, `${facts.name}.h5`, readFileSync(join(folder, `${facts.name}.h5`)));
    assert.equal(state, isOld(facts) ? 'refused' : 'open', await page.$eval('#problem', (one) => one.textContent));
    if (isOld(facts)) {
      await page.click('#problem button');
      assert.equal(await settled(page), 'open', await page.$eval('#problem', (one) => one.textContent));
    }
    const [samples, , height, width] = facts.shape;
    const grid = await gridOf(page);
    assert.deepEqual([grid.count, grid.height, grid.width], [Math.min(60, samples), height, width]);
    const expected = expectedBytes(facts);
    assert.ok(grid.bytes.every((byte, n) => Math.abs(byte - expected[n]) <= 0.51));
    assert.match(await page.$eval('#facts', (one) => one.textContent), new RegExp(`${facts.codec}, block ${facts.block}`));
    await page.click('#grid button');
    await page.waitForSelector('#detail[open] .masks canvas');
    assert.equal(await page.$$eval('.masks canvas', (all) => all.length), facts.shape[1]);
    const name = facts.labels ? facts.class_names[facts.labels[0]] : 'row 0';
    assert.match(await page.$eval('#detail h2', (one) => one.textContent), new RegExp(name));
    const line = await page.$eval('#detail p', (one) => one.textContent);
    for (const { name } of facts.targets) assert.ok(line.includes(`${name}: `), line);
    assert.deepEqual(seen, { errors: [], requests: [] });
    await page.close();
  });
}

test('a class is chosen', { skip }, async () => {
  const { page } = await openPage();
  await drop(page, 'pack.h5', readFileSync(join(folder, 'quantized-tiles-8.h5')));
  await page.select('#classes', '1');
  await page.waitForFunction(() => document.querySelectorAll('#grid canvas').length === 20);
  assert.deepEqual(await page.$$eval('#grid span', (all) => [...new Set(all.map((one) => one.textContent))]), ['Käfer']);
  await page.close();
});

test('a damaged pack and a file of another kind are refused in one line', { skip }, async () => {
  const { page, seen } = await openPage();
  const bytes = new Uint8Array(readFileSync(join(folder, 'quantized-tiles-8.h5')));
  bytes[bytes.length >> 1] ^= 1;
  for (const [content, line] of [[bytes, /checksum/], [Uint8Array.of(1, 2, 3), /no HDF5 file/]]) {
    assert.equal(await drop(page, 'broken.h5', content), 'refused');
    assert.match(await page.$eval('#problem', (one) => one.textContent), line);
  }
  assert.deepEqual(seen.errors, []);
  await page.close();
});

test('nothing can be sent', { skip }, async () => {
  const { page } = await openPage();
  const sent = await page.evaluate(() => fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'blocked'));
  assert.equal(sent, 'blocked');
  assert.match(await page.$eval('meta[http-equiv]', (one) => one.content), /connect-src 'none'/);
  await page.close();
});

for (const [name, width, scheme] of [['desktop', 1000, 'light'], ['phone', 375, 'dark']]) {
  test(`the page fits a ${name} in ${scheme}`, { skip }, async () => {
    const { page } = await openPage(width);
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
    await drop(page, 'pack.h5', readFileSync(join(folder, 'quantized-tiles-8.h5')));
    const [inner, outer] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(inner <= outer, `${inner} > ${outer}`);
    const back = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.equal(back, scheme === 'dark' ? 'rgb(21, 27, 29)' : 'rgb(251, 252, 252)');
    if (shots) await page.screenshot({ path: join(shots, `viewer-${name}.png`) });
    await page.click('#grid button');
    await page.waitForSelector('#detail[open] .masks canvas');
    if (shots) await page.screenshot({ path: join(shots, `viewer-${name}-detail.png`) });
    await page.close();
  });
}
