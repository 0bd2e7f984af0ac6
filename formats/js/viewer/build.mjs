// Build the page into one file, dist/viewer.html, which fetches nothing.
import { createHash } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

async function bundle(entry, define = {}) {
  const options = { bundle: true, minify: true, write: false, format: 'iife', target: 'es2022', charset: 'utf8' };
  const { outputFiles } = await build({ ...options, entryPoints: [here(entry)], define, logLevel: 'error' });
  // The text ends up within a script element.
  return outputFiles[0].text.replaceAll('</script', '<\\/script').replaceAll('<!--', '<\\!--');
}

const worker = await bundle('worker.ts');
const script = await bundle('viewer.ts', { WORKER: JSON.stringify(worker) });
const hash = createHash('sha256').update(script).digest('base64');
const policy = `'sha256-${hash}' 'wasm-unsafe-eval' blob:`;
const page = readFileSync(here('viewer.html'), 'utf8').replace('POLICY', policy);
// Under its name it is whole at any time: the site may be built meanwhile.
writeFileSync(here('../dist/viewer.partial'), page.replace('SCRIPT', () => script));
renameSync(here('../dist/viewer.partial'), here('../dist/viewer.html'));
