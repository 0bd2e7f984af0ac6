import type { ChunkCoefficients, ChunkDecoder } from './codecs/coefficients.js';
import { Quantized } from './codecs/quantized.js';
import { SparseF16, SparseF32 } from './codecs/sparse.js';
import { refuse } from './errors.js';
import { readHeader, tilingOf, type PackHeader } from './header.js';
import { PixelDecoder } from './pixels.js';
import { hasSignature, openPlain } from './plain.js';
import { byteSource } from './source.js';
import type { Storage } from './storage.js';
import { readClassNames, readLabels, readProvenance, readScores, readSourceIndex, type JsonObject, type SourceIndex } from './tables.js';
import { readTargets, type Target } from './targets.js';
import { openTrusted } from './trusted.js';

export interface OpenOptions {
  /**
   * Open the file by h5wasm, the HDF5 library in WebAssembly, without a look at how it is stored. Files before
   * version 1.3 need it. Only for files whose origin you trust, or in a Worker that you can end: a forged file may
   * keep HDF5 busy for ever, or fill the memory of WebAssembly.
   */
  trusted?: boolean;
}

/** Coefficients of one image, [channels, tiles, frequencies of a tile row by row]. */
export interface Coefficients {
  values: Float32Array;
  /** 1 where a coefficient is kept. */
  kept: Uint8Array;
  tileHeight: number;
  tileWidth: number;
  tilesDown: number;
  tilesAcross: number;
}

interface Tables {
  provenance: JsonObject;
  /** Index into `classNames` of each image; null where the images have no classes. */
  labels: Int32Array | null;
  classNames: string[];
  /** Row, from 0, of each image in its source. */
  sourceIndex: SourceIndex;
}

/** An open pack. Chunks are read when they are asked for; the last one is kept. */
export class Pack {
  readonly labels: Int32Array | null;
  readonly classNames: string[];
  readonly sourceIndex: SourceIndex;
  readonly provenance: JsonObject;
  private readonly pixels: PixelDecoder;
  private latest: { chunk: number; coefficients: Promise<ChunkCoefficients> } | null = null;

  /** @internal */
  constructor(
    private readonly storage: Storage,
    readonly header: PackHeader,
    tables: Tables,
    private readonly decoder: ChunkDecoder,
  ) {
    ({ labels: this.labels, classNames: this.classNames, sourceIndex: this.sourceIndex, provenance: this.provenance } = tables);
    this.pixels = new PixelDecoder(header);
  }

  /** Number of chunks; chunk n holds `header.chunkSamples` images from n times that onward. */
  get chunks(): number {
    return Math.ceil(this.header.samples / this.header.chunkSamples);
  }

  /**
   * Pixels on [0, 1] of one image, [channels, height, width], or of several, [rows, channels, height, width]. They
   * are clipped, and not rounded.
   *
   * @throws RangeError where there is no such row, PackError where the file is damaged
   */
  async decode(rows: number | ArrayLike<number>): Promise<Float32Array> {
    const wanted = typeof rows === 'number' ? [rows] : Array.from(rows);
    const { channels, height, width } = this.header;
    const size = channels * height * width;
    wanted.forEach((row) => this.check(row));
    const result = new Float32Array(wanted.length * size);
    const inOrder = wanted.map((row, at) => [row, at] as const).sort((one, other) => one[0] - other[0]);
    for (const [row, at] of inOrder) {
      const coefficients = await this.chunk(Math.floor(row / this.header.chunkSamples));
      this.pixels.decode(coefficients.image(row % this.header.chunkSamples), result.subarray(at * size, (at + 1) * size));
    }
    return result;
  }

  /** Pixels of all images of a chunk, as of `decode`. */
  async decodeChunk(chunk: number): Promise<Float32Array> {
    const first = chunk * this.header.chunkSamples;
    return this.decode(Array.from({ length: this.samplesOf(chunk) }, (_, n) => first + n));
  }

  /** What is stored of one image. */
  async coefficients(row: number): Promise<Coefficients> {
    this.check(row);
    const chunk = await this.chunk(Math.floor(row / this.header.chunkSamples));
    const number = row % this.header.chunkSamples;
    const { height, width, down, across } = tilingOf(this.header);
    const shape = { tileHeight: height, tileWidth: width, tilesDown: down, tilesAcross: across };
    return { values: chunk.image(number).slice(), kept: chunk.kept(number), ...shape };
  }

  /** The score by which each image was chosen; null where there are none. */
  async scores(): Promise<Float32Array | null> {
    return readScores(this.storage, this.header, this.provenance);
  }

  /** Columns of targets, in their order; none in most packs. */
  async targets(): Promise<Target[]> {
    return readTargets(this.storage, this.header);
  }

  /** Let go of the file. */
  close() {
    this.latest = null;
    this.storage.close();
  }

  private check(row: number) {
    const { samples } = this.header;
    if (!Number.isInteger(row) || row < 0 || row >= samples) throw new RangeError(`row ${row} of a pack of ${samples} images`);
  }

  private samplesOf(chunk: number): number {
    if (!Number.isInteger(chunk) || chunk < 0 || chunk >= this.chunks) throw new RangeError(`chunk ${chunk} of a pack of ${this.chunks} chunks`);
    return Math.min(this.header.chunkSamples, this.header.samples - chunk * this.header.chunkSamples);
  }

  private chunk(chunk: number): Promise<ChunkCoefficients> {
    if (this.latest?.chunk !== chunk) {
      this.latest = { chunk, coefficients: this.decoder.decode(chunk, this.samplesOf(chunk)) };
    }
    return this.latest.coefficients;
  }
}

/**
 * Open a pack. Of a `File` or `Blob` only the parts that are asked for are read, unless it is `trusted`.
 *
 * @throws PackError where it is no pack, or not a sound one
 */
export async function openPack(data: Uint8Array | ArrayBuffer | Blob, options: OpenOptions = {}): Promise<Pack> {
  const source = byteSource(data);
  if (!(await hasSignature(source))) refuse('not-a-pack', '/', source.size ? 'no HDF5 file, and so no pack' : 'the file is empty');
  const storage = await (options.trusted ? openTrusted(source) : openPlain(source));
  try {
    return await readPack(storage);
  } catch (error) {
    storage.close();
    throw error;
  }
}

async function readPack(storage: Storage): Promise<Pack> {
  const header = readHeader(storage.attributes);
  const found = storage.find('samples');
  if (found?.what !== 'group') refuse('layout', '/samples', found ? 'not a group' : 'missing');
  const provenance = await readProvenance(storage);
  const withClasses = storage.find('labels') !== null || storage.find('class_names') !== null || storage.find('targets')?.what !== 'group';
  const classNames = withClasses ? await readClassNames(storage) : [];
  const labels = withClasses ? await readLabels(storage, header, classNames.length) : null;
  const sourceIndex = await readSourceIndex(storage, header);
  const decoder = await { 'sparse-f32': SparseF32, 'sparse-f16': SparseF16, quantized: Quantized }[header.codec].open(storage, header);
  return new Pack(storage, header, { provenance, labels, classNames, sourceIndex }, decoder);
}
