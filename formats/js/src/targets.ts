import { findWhole, numbers, readChecked, type NumericArray, type TypeName } from './datasets.js';
import { refuse } from './errors.js';
import { halfToNumber, isSince, type PackHeader } from './header.js';
import type { Json } from './json.js';
import type { Storage, StoredDataset } from './storage.js';
import { readJson, texts } from './tables.js';

/** A column of what is known of each image. */
export interface Target {
  name: string;
  kind: 'class' | 'multilabel' | 'value' | 'probabilities' | 'text' | 'integer' | 'float';
  /** Names of classes, with `class`, `multilabel` and `probabilities`. */
  classes: string[];
  /** Numbers of an image: the length of a row of `values`. */
  width: number;
  unit: string | null;
  /**
   * Row by row: indices of classes, 0 or 1 for each class, numbers, probabilities on [0, 1], texts, integers, or
   * numbers that may be NaN.
   */
  values: NumericArray | string[];
}

const KINDS = ['class', 'multilabel', 'value', 'probabilities', 'text', 'integer', 'float'];
const WITH_CLASSES = ['class', 'multilabel', 'probabilities'];
const MAX_COLUMNS = 7;
const MAX_NAME = 4096;
const PARTS = 255;
const COLUMNS = 'targets/columns';

export async function readTargets(storage: Storage, header: PackHeader): Promise<Target[]> {
  if (!isSince(header, 3) || storage.find('targets') === null) return [];
  if (storage.find('targets')!.what !== 'group') refuse('layout', '/targets', 'not a group');
  const columns = await readJson(storage, COLUMNS);
  if (!Array.isArray(columns) || columns.length < 1 || columns.length > MAX_COLUMNS) refuse('layout', `/${COLUMNS}`, `not a list of 1 to ${MAX_COLUMNS} columns`);
  const described = columns.map(describe);
  if (new Set(described.map((one) => one.name)).size !== described.length) refuse('layout', `/${COLUMNS}`, 'two columns have one name');
  const targets: Target[] = [];
  for (const [n, column] of described.entries()) {
    const { top, ...target } = column;
    targets.push({ ...target, values: await readValues(storage, `targets/${n}`, column, header.samples) });
  }
  return targets;
}

type Description = Omit<Target, 'values'> & { top: number };

function describe(column: Json): Description {
  const fail = (what: string): never => refuse('layout', `/${COLUMNS}`, what);
  if (typeof column !== 'object' || column === null || Array.isArray(column)) return fail('a column is no object');
  const { name, kind, classes = [], width = 1, unit = null, top = 0 } = column;
  if (!isText(name, 255) || !name || name === 'label' || !/^[^\p{C}\p{Zl}\p{Zp}]*$/u.test(name)) return fail('a name is not sound');
  if (typeof kind !== 'string' || !KINDS.includes(kind)) return fail(`${JSON.stringify(kind)} is no kind of column`);
  if (!Array.isArray(classes) || !classes.every((one) => isText(one, MAX_NAME))) return fail('classes are no list of text');
  if (WITH_CLASSES.includes(kind) !== 'classes' in column || 'classes' in column === (classes.length === 0)) return fail(`classes do not fit ${kind}`);
  if (classes.length > (kind === 'class' ? 2 ** 20 : 2 ** 16) || new Set(classes).size !== classes.length) return fail('too many classes, or one twice');
  if (typeof width !== 'number' || !Number.isInteger(width) || width < 1 || width > 2 ** 16) return fail('a width is not sound');
  if ('width' in column && kind !== 'value') return fail(`a width does not fit ${kind}`);
  if (unit !== null && !isText(unit, MAX_NAME)) return fail('a unit is no text');
  if (typeof top !== 'number' || !Number.isInteger(top) || top < 0 || top > Math.min(classes.length, PARTS)) return fail('a number of likeliest classes is not sound');
  if (top > 0 && kind !== 'probabilities') return fail(`likeliest classes do not fit ${kind}`);
  const rowLength = kind === 'multilabel' || kind === 'probabilities' ? classes.length : width;
  return { name, kind: kind as Target['kind'], classes: classes as string[], width: rowLength, unit, top };
}

function isText(value: Json | undefined, most: number): value is string {
  return typeof value === 'string' && new TextEncoder().encode(value).length <= most;
}

async function readValues(storage: Storage, path: string, column: Description, samples: number): Promise<NumericArray | string[]> {
  const { kind, classes, width, top } = column;
  const read = async (types: TypeName[], shape: number[]) => {
    const dataset = findWhole(storage, path, types, shape);
    if (kind === 'text' && dataset.type.size > MAX_NAME) refuse('limit', `/${path}`, `texts of ${dataset.type.size} B each`);
    const bytes = await readChecked(dataset, path);
    return { dataset, bytes };
  };
  switch (kind) {
    case 'class':
      return checked(path, valuesOf(await read(['u1', 'u2', 'i4'], [samples])), (value) => value >= 0 && value < classes.length);
    case 'multilabel':
      return unpackBits((await read(['u1'], [samples, Math.ceil(classes.length / 8)])).bytes, samples, classes.length, path);
    case 'value':
      return checked(path, valuesOf(await read(['f4'], [samples, width])), Number.isFinite);
    case 'probabilities':
      if (top) {
        const size = classes.length > 256 ? 3 : 2;
        return spread(path, (await read(['u1'], [samples, top, size])).bytes, top, size, width);
      }
      return probabilities(path, valuesOf(await read(['f2', 'u1'], [samples, width])), width);
    case 'text': {
      const { dataset, bytes } = await read(['text'], [samples]);
      return texts(bytes, dataset.type.size, path);
    }
    case 'integer':
      return valuesOf(await read(['i8'], [samples]));
    case 'float':
      return valuesOf(await read(['f8', 'f4'], [samples]));
  }
}

function valuesOf({ dataset, bytes }: { dataset: StoredDataset; bytes: Uint8Array }): NumericArray {
  return numbers(bytes, `${dataset.type.kind[0]}${dataset.type.size}`);
}

function checked(path: string, values: NumericArray, sound: (value: number) => boolean): NumericArray {
  if (!(values as Float32Array).every((value) => sound(value))) refuse('layout', `/${path}`, 'a value is not sound');
  return values;
}

function unpackBits(bytes: Uint8Array, samples: number, classes: number, path: string): Uint8Array {
  const row = Math.ceil(classes / 8);
  const flags = new Uint8Array(samples * classes);
  for (let n = 0; n < samples; n++) {
    for (let k = 0; k < 8 * row; k++) {
      const bit = (bytes[n * row + (k >> 3)]! >> (k & 7)) & 1;
      if (k < classes) flags[n * classes + k] = bit;
      else if (bit) refuse('layout', `/${path}`, 'unused bits are not zero');
    }
  }
  return flags;
}

/** Probabilities from halves, or from parts of 255. */
function probabilities(path: string, stored: NumericArray, classes: number): Float32Array {
  const inParts = stored instanceof Uint8Array;
  const values = Float32Array.from(stored as Uint16Array, (value) => (inParts ? value / 255 : halfToNumber(value)));
  for (let n = 0; n < values.length; n += classes) {
    const row = values.subarray(n, n + classes);
    const sum = row.reduce((total, value) => total + value, 0);
    const near = Math.abs(sum - 1) <= (inParts ? 1e-3 : 0.01);
    if (!near || !row.every((value) => value >= 0 && value <= 1)) refuse('layout', `/${path}`, 'probabilities do not sum to 1');
  }
  return values;
}

/** Probabilities of all classes from the likeliest ones: each its number and its part of 255; the others share the rest. */
function spread(path: string, bytes: Uint8Array, top: number, size: number, classes: number): Float32Array {
  const values = new Float32Array((bytes.length / (top * size)) * classes);
  const fail = (): never => refuse('layout', `/${path}`, 'likeliest classes are not sound');
  for (let row = 0, at = 0; row < values.length; row += classes) {
    const named = new Map<number, number>();
    let left = PARTS;
    for (let k = 0; k < top; k++, at += size) {
      const number = bytes[at]! + (size === 3 ? 256 * bytes[at + 1]! : 0);
      const part = bytes[at + size - 1]!;
      if (number >= classes || (part === 0 ? number > 0 : named.has(number))) fail();
      if (part) named.set(number, part);
      left -= part;
    }
    const others = classes - named.size;
    if (left < 0 || (left > 0 && others === 0)) fail();
    values.fill(others ? left / others / PARTS : 0, row, row + classes);
    for (const [number, part] of named) values[row + number] = part / PARTS;
  }
  return values;
}
