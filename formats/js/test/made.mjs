import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const SCRIPTS = fileURLToPath(new URL('../../../tests/formats/javascript/', import.meta.url));
const PYTHON = process.env.PYTHON ?? 'python3';

/** A temporary folder that a script in Python has filled; it goes when the process ends. */
export function make(script) {
  const folder = mkdtempSync(join(tmpdir(), 'edgepack-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  execFileSync(PYTHON, [join(SCRIPTS, script), folder], { stdio: ['ignore', 'ignore', 'inherit'] });
  return folder;
}

export function readJson(folder, name) {
  return JSON.parse(readFileSync(join(folder, name), 'utf8'));
}

/** The bytes of a file, alone in their buffer. */
export function readBytes(folder, name) {
  return new Uint8Array(readFileSync(join(folder, name)));
}

/** Packs of every codec and version, and what Python reads from them. */
export function makePacks() {
  const folder = process.env.EDGEPACK_PACKS ?? make('make_packs.py');
  return { folder, packs: readJson(folder, 'packs.json') };
}

/** Only files of 1.3 and later are opened without trust. */
export function isOld(pack) {
  return Number(pack.version.split('.')[1]) < 3;
}

/** Whether an error, if there is one, comes after the look at how the file is stored. */
export function isPlain(error) {
  return error === null || !/not stored plainly|metadata do not match|cut short|is empty/.test(error.message);
}
