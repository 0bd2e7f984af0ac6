import { decodeText } from './bytes.js';
import { findWhole, numbers, readChecked, type NumericArray, type TypeName } from './datasets.js';
import { refuse } from './errors.js';
import { isSince, type PackHeader } from './header.js';
import { parseJson, type Json } from './json.js';
import type { Storage } from './storage.js';

export type JsonObject = { [name: string]: Json };
/** Rows, from 0, of the images in their source, as they are stored. */
export type SourceIndex = Uint16Array | Uint32Array | BigInt64Array;

const MAX_CLASSES = 2 ** 20;
const MAX_NAME = 4096;
const MAX_JSON = 2 ** 24;

async function readNumbers(storage: Storage, path: string, types: TypeName[], count: number): Promise<NumericArray> {
  const dataset = findWhole(storage, path, types, [count]);
  const bytes = await readChecked(dataset, path);
  return numbers(bytes, `${dataset.type.kind[0]}${dataset.type.size}`);
}

export async function readClassNames(storage: Storage): Promise<string[]> {
  const path = 'class_names';
  const dataset = findWhole(storage, path, ['text'], null);
  const [count] = dataset.shape!;
  if (dataset.shape!.length !== 1 || count! < 1 || count! > MAX_CLASSES) refuse('limit', `/${path}`, `of shape (${dataset.shape!.join(', ')}); it must hold 1 to ${MAX_CLASSES} names`);
  if (dataset.type.size > MAX_NAME) refuse('limit', `/${path}`, `names of ${dataset.type.size} B each`);
  const names = texts(await readChecked(dataset, path), dataset.type.size, path);
  if (new Set(names).size !== names.length) refuse('layout', `/${path}`, 'a name stands twice');
  return names;
}

export function texts(bytes: Uint8Array, size: number, path: string): string[] {
  try {
    return Array.from({ length: bytes.length / size }, (_, n) => decodeText(bytes.subarray(n * size, (n + 1) * size)));
  } catch {
    return refuse('layout', `/${path}`, 'not UTF-8');
  }
}

export async function readLabels(storage: Storage, header: PackHeader, classes: number): Promise<Int32Array> {
  const types: TypeName[] = isSince(header, 2) ? ['i4', 'u1', 'u2'] : ['i4'];
  const labels = Int32Array.from((await readNumbers(storage, 'labels', types, header.samples)) as Int32Array);
  if (labels.some((label) => label < 0 || label >= classes)) refuse('layout', '/labels', `a label is outside 0..${classes - 1}`);
  return labels;
}

export async function readSourceIndex(storage: Storage, header: PackHeader): Promise<SourceIndex> {
  const types: TypeName[] = isSince(header, 2) ? ['i8', 'u2', 'u4'] : ['i8'];
  const index = (await readNumbers(storage, 'source_index', types, header.samples)) as SourceIndex;
  if (index instanceof BigInt64Array && index.some((row) => row < 0n)) refuse('layout', '/source_index', 'a row is negative');
  return index;
}

/** A JSON document that is stored as one text. */
export async function readJson(storage: Storage, path: string): Promise<Json> {
  const dataset = findWhole(storage, path, ['text'], []);
  if (dataset.type.size > MAX_JSON) refuse('limit', `/${path}`, `of ${dataset.type.size} B`);
  const bytes = await readChecked(dataset, path);
  try {
    return parseJson(decodeText(bytes));
  } catch (error) {
    return refuse('layout', `/${path}`, `not a JSON object that a pack may hold: ${(error as Error).message}`);
  }
}

const isObject = (value: Json | undefined): value is JsonObject => typeof value === 'object' && value !== null && !Array.isArray(value);

export async function readProvenance(storage: Storage): Promise<JsonObject> {
  const provenance = await readJson(storage, 'provenance');
  if (!isObject(provenance)) refuse('layout', '/provenance', 'not a JSON object');
  for (const name of ['source', 'config', 'result']) {
    if (name in provenance && !isObject(provenance[name])) refuse('layout', '/provenance', `not a JSON object under ${name}`);
  }
  return provenance;
}

/** Null where there are none, or where the version has none. */
export async function readScores(storage: Storage, header: PackHeader, provenance: JsonObject): Promise<Float32Array | null> {
  if (!isSince(header, 1)) return null;
  if (storage.find('scores') === null) {
    const { coreset } = provenance;
    if (isObject(coreset) && 'keep_end' in coreset) refuse('layout', '/scores', 'missing, though provenance names their direction');
    return null;
  }
  const scores = (await readNumbers(storage, 'scores', ['f4'], header.samples)) as Float32Array;
  if (!scores.every(Number.isFinite)) refuse('layout', '/scores', 'a score is NaN or infinite');
  return scores;
}
