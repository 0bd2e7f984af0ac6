// Images decoded a second, in Node and in Chromium: node test/bench.mjs [PACK ...]
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { openPack } from '../dist/index.js';
import { browse, CHROMIUM } from './browser.mjs';
import { make } from './made.mjs';

const ROUNDS = 5;

/** Seconds of each round of decoding all images; it runs in both places. */
async function measure(openPack, bytes, rounds) {
  const seconds = [];
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    const pack = await openPack(bytes, { trusted: false });
    for (let chunk = 0; chunk < pack.chunks; chunk++) await pack.decodeChunk(chunk);
    seconds.push((performance.now() - start) / 1000);
    if (round === rounds - 1) return { seconds, images: pack.header.samples };
    pack.close();
  }
}

async function inBrowser(files) {
  const entry = fileURLToPath(new URL('../src/index.ts', import.meta.url));
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, write: false, format: 'iife', globalName: 'edgepack', logLevel: 'error' });
  const browser = await browse();
  try {
    const page = await browser.newPage();
    const system = await browser.target().createCDPSession();
    // Seconds of the processor that Chromium's processes for pages have taken.
    const busy = async () => {
      const { processInfo } = await system.send('SystemInfo.getProcessInfo');
      return processInfo.filter(({ type }) => type === 'renderer').reduce((sum, { cpuTime }) => sum + cpuTime, 0);
    };
    await page.addScriptTag({ content: outputFiles[0].text });
    const results = [];
    for (const file of files) {
      const content = readFileSync(file).toString('base64');
      await page.evaluate((content) => {
        globalThis.bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
      }, content);
      const before = await busy();
      const result = await page.evaluate(`(${measure})(edgepack.openPack, bytes, ${ROUNDS})`);
      results.push({ ...result, busy: (await busy()) - before });
    }
    return { version: await browser.version(), results };
  } finally {
    await browser.close();
  }
}

function row(where, file, { seconds, images, busy }) {
  const rate = (time) => Math.round(images / time);
  const sorted = [...seconds].sort((one, other) => one - other);
  const [median, best, worst] = [sorted[ROUNDS >> 1], sorted[0], sorted.at(-1)].map(rate);
  return { where, pack: basename(file), images, 'images/s, median': median, best, worst, 'a second of the processor': rate(busy / ROUNDS) };
}

const folder = process.argv.length > 2 ? null : make('make_bench.py');
const files = folder ? readdirSync(folder).map((name) => join(folder, name)) : process.argv.slice(2);
const rows = [];
for (const file of files) {
  const bytes = new Uint8Array(readFileSync(file));
  const before = process.cpuUsage();
  const result = await measure(openPack, bytes, ROUNDS);
  const { user, system } = process.cpuUsage(before);
  rows.push(row(`Node ${process.version}`, file, { ...result, busy: (user + system) / 1e6 }));
}
if (existsSync(CHROMIUM)) {
  const { version, results } = await inBrowser(files);
  results.forEach((result, n) => rows.push(row(version, files[n], result)));
}
console.table(rows);
