import { aligned } from './bytes.js';
import { crc32 } from './checksums.js';
import { refuse } from './errors.js';
import { MAX_CHUNK_BYTES } from './header.js';
import type { Storage, StoredDataset, StoredType } from './storage.js';

/** A type of the specification: `u1`, `i4`, `f4` and so on; `text` of any length. */
export type TypeName = 'u1' | 'u2' | 'u4' | 'u8' | 'i4' | 'i8' | 'f2' | 'f4' | 'f8' | 'text';
export type NumericArray = Uint8Array | Uint16Array | Uint32Array | BigUint64Array | Int32Array | BigInt64Array | Float32Array | Float64Array;

const LETTERS = { u: 'uint', i: 'int', f: 'float' } as const;

export function typeName({ kind, size, littleEndian }: StoredType): string {
  if (kind === 'text' || kind === 'other') return kind;
  const letter = Object.entries(LETTERS).find(([, name]) => name === kind)![0];
  return `${littleEndian || size === 1 ? '' : '>'}${letter}${size}`;
}

/** The numbers that bytes of a type hold; halves as their bits. */
export function numbers(bytes: Uint8Array, type: string): NumericArray {
  const buffer = aligned(bytes);
  switch (type) {
    case 'u1':
      return new Uint8Array(buffer);
    case 'u2':
    case 'f2':
      return new Uint16Array(buffer);
    case 'u4':
      return new Uint32Array(buffer);
    case 'u8':
      return new BigUint64Array(buffer);
    case 'i4':
      return new Int32Array(buffer);
    case 'i8':
      return new BigInt64Array(buffer);
    case 'f4':
      return new Float32Array(buffer);
    default:
      return new Float64Array(buffer);
  }
}

export function bytesOf(dataset: StoredDataset): number {
  return dataset.shape!.reduce((product, length) => product * length, dataset.type.size);
}

/** A dataset that is there, of one of the types, in this file. */
export function findDataset(storage: Storage, path: string, types: TypeName[]): StoredDataset {
  const found = storage.find(path) ?? refuse('layout', `/${path}`, 'missing');
  if (found.what === 'link') refuse('layout', `/${path}`, 'a link in place of the object');
  if (found.what !== 'dataset') refuse('layout', `/${path}`, 'not a dataset');
  if (!(types as string[]).includes(typeName(found.type))) refuse('layout', `/${path}`, `of type ${typeName(found.type)} in place of ${types.join(' or ')}`);
  if (found.shape === null) refuse('layout', `/${path}`, 'of no shape');
  if (found.layout === 'elsewhere') refuse('layout', `/${path}`, 'its data are in other files');
  return found;
}

/** A dataset that is stored whole and without filters, no larger than the file. */
export function findWhole(storage: Storage, path: string, types: TypeName[], shape: number[] | null): StoredDataset {
  const dataset = findDataset(storage, path, types);
  if (shape) checkShape(dataset, path, shape);
  if (dataset.filters.length) refuse('layout', `/${path}`, 'it has filters');
  if (dataset.layout !== 'whole') refuse('layout', `/${path}`, 'chunked in place of contiguous');
  if (bytesOf(dataset) > storage.size) refuse('limit', `/${path}`, 'the file does not hold that much');
  return dataset;
}

export function checkShape(dataset: StoredDataset, path: string, shape: number[]) {
  if (dataset.shape!.join() !== shape.join()) refuse('layout', `/${path}`, `of shape (${dataset.shape!.join(', ')}) in place of (${shape.join(', ')})`);
}

/** All bytes of a dataset, which match its attribute `crc32`. */
export async function readChecked(dataset: StoredDataset, path: string): Promise<Uint8Array> {
  const stated = dataset.attributes.get('crc32');
  if (!stated || typeName(stated.type) !== 'u4' || stated.shape?.length !== 0) refuse('checksum', `/${path}`, 'it has no checksum');
  const bytes = await readRange(dataset, path, 0, bytesOf(dataset));
  if (crc32(bytes) !== numbers(stated.bytes, 'u4')[0]) refuse('checksum', `/${path}`, 'does not match its checksum');
  return bytes;
}

async function readRange(dataset: StoredDataset, path: string, from: number, to: number): Promise<Uint8Array> {
  try {
    return await dataset.read(from, to);
  } catch (error) {
    return refuse('checksum', `/${path}`, `cannot be read: ${(error as Error).message}`);
  }
}

/** Checksums of chunks. */
export async function readChecksums(storage: Storage, path: string, chunks: number): Promise<Uint32Array> {
  const dataset = findWhole(storage, path, ['u4'], [chunks]);
  return numbers(await readRange(dataset, path, 0, bytesOf(dataset)), 'u4') as Uint32Array;
}

/** An array of a codec whose size differs from chunk to chunk. */
export class Stream {
  private constructor(
    private readonly dataset: StoredDataset,
    private readonly path: string,
    private readonly offsets: number[],
    private readonly checksums: Uint32Array,
  ) {}

  static async open(storage: Storage, path: string, chunks: number): Promise<Stream> {
    const dataset = findWhole(storage, path, ['u1'], null);
    if (dataset.shape!.length !== 1) refuse('layout', `/${path}`, 'of a shape other than one axis');
    const index = findWhole(storage, `${path}_offsets`, ['u8'], [chunks + 1]);
    const checksums = await readChecksums(storage, `${path}_crc32`, chunks);
    const stored = numbers(await readChecked(index, `${path}_offsets`), 'u8') as BigUint64Array;
    const offsets = Array.from(stored, Number);
    const ascending = offsets.every((offset, n) => n === 0 || offset >= offsets[n - 1]!);
    if (!ascending || offsets[0] !== 0 || offsets[chunks] !== dataset.shape![0]) refuse('layout', `/${path}`, 'its chunks do not lie end to end');
    if (offsets.some((offset, n) => n > 0 && offset - offsets[n - 1]! > MAX_CHUNK_BYTES)) refuse('limit', `/${path}`, `a chunk exceeds ${MAX_CHUNK_BYTES} B`);
    return new Stream(dataset, path, offsets, checksums);
  }

  async read(chunk: number): Promise<Uint8Array> {
    const bytes = await readRange(this.dataset, this.path, this.offsets[chunk]!, this.offsets[chunk + 1]!);
    checkChunk(bytes, this.checksums, this.path, chunk);
    return bytes;
  }
}

/** An array of a codec that has an entry for each image, in chunks of images. */
export class Rows {
  private constructor(
    private readonly dataset: StoredDataset,
    private readonly path: string,
    private readonly type: string,
    private readonly rowBytes: number,
    private readonly checksums: Uint32Array,
  ) {}

  static async open(storage: Storage, path: string, type: TypeName, shape: number[], chunkSamples: number): Promise<Rows> {
    const dataset = findDataset(storage, path, [type]);
    checkShape(dataset, path, shape);
    const wanted = [chunkSamples, ...shape.slice(1)].join();
    if (dataset.layout !== 'chunked' || dataset.chunks.join() !== wanted) refuse('layout', `/${path}`, `not in chunks of (${wanted})`);
    if (dataset.filters.length && dataset.filters.join() !== '2,1') refuse('layout', `/${path}`, 'it has filters that a pack has not');
    const checksums = await readChecksums(storage, `${path}_crc32`, Math.ceil(shape[0]! / chunkSamples));
    const rowBytes = shape.slice(1).reduce((product, length) => product * length, dataset.type.size);
    return new Rows(dataset, path, type, rowBytes, checksums);
  }

  async read(chunk: number, samples: number): Promise<NumericArray> {
    const where = `/${this.path} chunk ${chunk}`;
    let bytes: Uint8Array;
    try {
      bytes = await this.dataset.readChunk(chunk, samples, samples * this.rowBytes);
    } catch (error) {
      return refuse('checksum', where, `cannot be read: ${(error as Error).message}`);
    }
    checkChunk(bytes, this.checksums, this.path, chunk);
    return numbers(bytes, this.type);
  }
}

function checkChunk(bytes: Uint8Array, checksums: Uint32Array, path: string, chunk: number) {
  if (crc32(bytes) !== checksums[chunk]) refuse('checksum', `/${path} chunk ${chunk}`, 'does not match its checksum; copy the file again');
}
