import { Cursor } from '../bytes.js';
import { Stream } from '../datasets.js';
import { refuse } from '../errors.js';
import { tilingOf, type PackHeader, type Tiling } from '../header.js';
import { inflate, InflateError } from '../inflate.js';
import type { Storage } from '../storage.js';
import type { ChunkCoefficients, ChunkDecoder } from './coefficients.js';
import { Distributions, StreamError, SymbolReader } from './rans.js';
import { makeScan, type Scan } from './scan.js';

const CLASSES = 48;
const BANDS = 16;
const MOST_STATES = 512;
const SYMBOLS_PER_STATE = 8192;
const ESCAPE = 15;
const MAX_MAGNITUDE = 15;
/** Sum of the weights of a context, times the largest magnitude. */
const MAX_SUM = 30 * MAX_MAGNITUDE;

/** The class that a sum of magnitudes adds to the base: half the binary logarithm of 2 (S + 2)^4. */
const CLASS_OF_SUM = Int32Array.from({ length: MAX_SUM + 1 }, (_, sum) => (((2 * (sum + 2) ** 4).toString(2).length - 1) / 2) | 0);

export class Quantized implements ChunkDecoder {
  private readonly tiling: Tiling;
  private readonly scan: Scan;

  private constructor(
    private readonly header: PackHeader,
    private readonly payload: Stream,
  ) {
    this.tiling = tilingOf(header);
    this.scan = makeScan(this.tiling.height, this.tiling.width);
  }

  static async open(storage: Storage, header: PackHeader): Promise<Quantized> {
    return new Quantized(header, await Stream.open(storage, 'samples/payload', Math.ceil(header.samples / header.chunkSamples)));
  }

  async decode(chunk: number, samples: number): Promise<ChunkCoefficients> {
    const bytes = await this.payload.read(chunk);
    const { channels, step } = this.header;
    try {
      const tiles = samples * this.tiling.down * this.tiling.across;
      const planes = await decodePayload(bytes, channels, tiles, this.scan);
      for (const plane of planes) restoreMeans(plane, this.tiling);
      return new Planes(planes, this.scan, this.tiling, step);
    } catch (error) {
      if (!(error instanceof StreamError || error instanceof InflateError || error instanceof RangeError)) throw error;
      return refuse('layout', `/samples/payload chunk ${chunk}`, error.message);
    }
  }
}

/** Quantized coefficients, for each plane [frequencies in coding order, tiles of all images]. */
class Planes implements ChunkCoefficients {
  private readonly values: Float32Array;

  constructor(
    private readonly planes: Int16Array[],
    private readonly scan: Scan,
    private readonly tiling: Tiling,
    private readonly step: number,
  ) {
    this.values = new Float32Array(planes.length * this.tiles * scan.raster.length);
  }

  private get tiles() {
    return this.tiling.down * this.tiling.across;
  }

  image(number: number): Float32Array {
    const { tiles, values, step } = this;
    const { raster } = this.scan;
    const all = this.planes[0]!.length / raster.length;
    this.planes.forEach((plane, channel) => {
      for (let tile = 0; tile < tiles; tile++) {
        const to = (channel * tiles + tile) * raster.length;
        for (let n = 0, at = number * tiles + tile; n < raster.length; n++, at += all) values[to + raster[n]!] = plane[at]! * step;
      }
    });
    return values;
  }

  kept(number: number): Uint8Array {
    return Uint8Array.from(this.image(number), (value) => (value === 0 ? 0 : 1));
  }
}

/** Parse a chunk and decode it to integers, for each plane [frequencies in coding order, tiles]. */
async function decodePayload(bytes: Uint8Array, channels: number, tiles: number, scan: Scan): Promise<Int16Array[]> {
  const cursor = new Cursor(bytes);
  const [modelSize, lanes, words, plain] = [cursor.u32(), cursor.u32(), cursor.u32(), cursor.u32()];
  if (lanes < 1 || lanes > MOST_STATES) throw new StreamError(`${lanes} states`);
  if (16 + modelSize + 4 * lanes + 2 * words + plain !== bytes.length) throw new StreamError('sizes do not add up');
  const { bases, distributions } = await readModel(cursor.take(modelSize), channels, scan.raster.length);
  const states = Uint32Array.from({ length: lanes }, () => cursor.u32());
  const reader = new SymbolReader(distributions, states, Uint16Array.from({ length: words }, () => cursor.u16()), cursor.take(plain));
  const most = lanes === MOST_STATES ? Infinity : lanes * SYMBOLS_PER_STATE;
  const planes = new PlaneDecoder(reader, bases, tiles, scan, most);
  const decoded = Array.from({ length: channels }, (_, plane) => planes.decode(plane));
  reader.finish();
  return decoded;
}

async function readModel(bytes: Uint8Array, channels: number, frequencies: number) {
  const contexts = CLASSES + BANDS * channels;
  const least = channels * frequencies + contexts / 8;
  const model = await inflate(bytes, least, least + 32 * contexts);
  const bases = model.subarray(0, channels * frequencies);
  const cursor = new Cursor(model, least);
  const distributions = new Distributions(contexts);
  for (let context = 0; context < contexts; context++) {
    if (!((model[bases.length + (context >> 3)]! >> (context & 7)) & 1)) continue;
    distributions.set(context, Uint16Array.from({ length: 16 }, () => cursor.u16()));
  }
  if (cursor.left) throw new StreamError('the model is too long');
  return { bases, distributions };
}

class PlaneDecoder {
  private readonly magnitudes: Uint8Array;
  private readonly sums: Int32Array;
  private readonly contexts: Uint16Array;
  private readonly symbols: Uint8Array;
  private readonly shifts: Uint8Array;
  private bandsBefore: Uint8Array;
  private taken = 0;

  constructor(
    private readonly reader: SymbolReader,
    private readonly bases: Uint8Array,
    private readonly tiles: number,
    private readonly scan: Scan,
    private readonly mostSymbols: number,
  ) {
    const widest = Math.max(...scan.diagonals.slice(1).map((end, d) => end - scan.diagonals[d]!));
    this.magnitudes = new Uint8Array(scan.raster.length * tiles);
    this.sums = new Int32Array(tiles);
    this.contexts = new Uint16Array(Math.max(1, widest) * tiles);
    this.symbols = new Uint8Array(this.contexts.length);
    this.shifts = new Uint8Array(this.contexts.length);
    this.bandsBefore = new Uint8Array(tiles);
  }

  decode(plane: number): Int16Array {
    const { tiles, scan } = this;
    const values = new Int16Array(scan.raster.length * tiles);
    this.magnitudes.fill(0);
    let covering = this.readBands(plane);
    for (let d = 0; d + 1 < scan.diagonals.length; d++) {
      covering = covering.filter((tile) => scan.bandEnds[this.bandsBefore[tile]!]! >= d);
      if (covering.length) this.readDiagonal(plane, d, covering, values);
    }
    return values;
  }

  /** Read the bands of all tiles; all are covered at first. */
  private readBands(plane: number): Uint32Array {
    const { tiles, bandsBefore } = this;
    const first = CLASSES + BANDS * plane;
    const contexts = Uint16Array.from(bandsBefore, (band) => first + band);
    const bands = new Uint8Array(tiles);
    this.take(contexts, tiles, bands);
    this.bandsBefore = bands;
    return Uint32Array.from({ length: tiles }, (_, tile) => tile);
  }

  private take(contexts: Uint16Array, count: number, into: Uint8Array) {
    this.taken += count;
    if (this.taken > this.mostSymbols) throw new StreamError('too few states for the symbols');
    this.reader.run(contexts, count, into);
  }

  private readDiagonal(plane: number, d: number, covering: Uint32Array, values: Int16Array) {
    const { scan, bases } = this;
    const coded: number[] = [];
    let count = 0;
    for (let n = scan.diagonals[d]!; n < scan.diagonals[d + 1]!; n++) {
      const base = bases[plane * scan.raster.length + n]!;
      if (base === 0) continue;
      coded.push(n);
      this.classify(n, base, covering, count);
      count += covering.length;
    }
    if (count === 0) return;
    this.take(this.contexts, count, this.symbols);
    coded.forEach((n, at) => this.place(n, covering, at * covering.length, values));
  }

  /** Find the class of each coefficient of a frequency from what is decoded of its tile. */
  private classify(n: number, base: number, covering: Uint32Array, to: number) {
    const { tiles, magnitudes, sums, contexts, shifts } = this;
    const count = covering.length;
    sums.fill(0, 0, count);
    for (const { from, weight } of this.scan.neighbors[n]!) {
      const row = from * tiles;
      for (let k = 0; k < count; k++) sums[k]! += weight * magnitudes[row + covering[k]!]!;
    }
    for (let k = 0; k < count; k++) {
      const found = base - 64 + CLASS_OF_SUM[sums[k]!]!;
      const context = found < 0 ? 0 : found > CLASSES - 1 ? CLASSES - 1 : found;
      contexts[to + k] = context;
      shifts[to + k] = context > 20 ? (context - 20) >> 1 : 0;
    }
  }

  /** Turn symbols and plain bits to values. */
  private place(n: number, covering: Uint32Array, from: number, values: Int16Array) {
    const { tiles, magnitudes, symbols, shifts, reader } = this;
    const row = n * tiles;
    for (let k = 0; k < covering.length; k++) {
      const symbol = symbols[from + k]!;
      const shift = shifts[from + k]!;
      if (symbol === 7 && shift === 0) continue;
      const at = row + covering[k]!;
      values[at] = symbol === ESCAPE ? reader.bits(16) : ((symbol - 7) << shift) + (shift ? reader.bits(shift) : 0);
      const magnitude = Math.abs(values[at]!);
      magnitudes[at] = magnitude > MAX_MAGNITUDE ? MAX_MAGNITUDE : magnitude;
    }
  }
}

/** Frequency 0 is stored as the difference from the tile to the left, or above; sums wrap at 16 bits. */
function restoreMeans(plane: Int16Array, { down, across, height, width }: Tiling) {
  const tiles = plane.length / (height * width);
  for (let tile = 0; tile < tiles; tile++) {
    const place = tile % (down * across);
    if (place % across) plane[tile]! += plane[tile - 1]!;
    else if (place) plane[tile]! += plane[tile - across]!;
  }
}
