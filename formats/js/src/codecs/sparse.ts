import { Rows, Stream } from '../datasets.js';
import { refuse } from '../errors.js';
import { columnBits, halfToNumber, positionBytes, type PackHeader } from '../header.js';
import { inflate, InflateError } from '../inflate.js';
import type { Storage } from '../storage.js';
import type { ChunkCoefficients, ChunkDecoder } from './coefficients.js';

/** Coefficients of which those that are kept are listed, with their places in a plane of H x W, ascending. */
class Sparse implements ChunkCoefficients {
  private readonly dense: Float32Array;

  constructor(
    private readonly header: PackHeader,
    private readonly values: Float32Array,
    private readonly places: Uint32Array,
  ) {
    this.dense = new Float32Array(header.channels * header.height * header.width);
  }

  image(number: number): Float32Array {
    this.dense.fill(0);
    this.each(number, (place, n) => (this.dense[place] = this.values[n]!));
    return this.dense;
  }

  kept(number: number): Uint8Array {
    const mask = new Uint8Array(this.dense.length);
    this.each(number, (place) => (mask[place] = 1));
    return mask;
  }

  private each(number: number, visit: (place: number, n: number) => void) {
    const { channels, height, width, components } = this.header;
    for (let channel = 0, n = number * channels * components; channel < channels; channel++) {
      for (let k = 0; k < components; k++, n++) visit(channel * height * width + this.places[n]!, n);
    }
  }
}

function shapeOf({ samples, channels, components }: PackHeader): number[] {
  return [samples, channels, components];
}

function checkFinite(values: Float32Array, chunk: number) {
  if (!values.every(Number.isFinite)) refuse('layout', `/samples/values chunk ${chunk}`, 'a value is NaN or infinite');
}

export class SparseF32 implements ChunkDecoder {
  private constructor(
    private readonly header: PackHeader,
    private readonly values: Rows,
    private readonly indices: Rows,
  ) {}

  static async open(storage: Storage, header: PackHeader): Promise<SparseF32> {
    const shape = shapeOf(header);
    const values = await Rows.open(storage, 'samples/values', 'f4', shape, header.chunkSamples);
    const type = positionBytes(header) === 2 ? 'u2' : 'u4';
    return new SparseF32(header, values, await Rows.open(storage, 'samples/indices', type, shape, header.chunkSamples));
  }

  async decode(chunk: number, samples: number): Promise<ChunkCoefficients> {
    const values = (await this.values.read(chunk, samples)) as Float32Array;
    const indices = (await this.indices.read(chunk, samples)) as Uint16Array | Uint32Array;
    checkFinite(values, chunk);
    return new Sparse(this.header, values, this.placesOf(indices, chunk));
  }

  private placesOf(indices: Uint16Array | Uint32Array, chunk: number): Uint32Array {
    const { components, height, width } = this.header;
    const bits = columnBits(width);
    const places = new Uint32Array(indices.length);
    for (let n = 0; n < indices.length; n++) {
      const index = indices[n]!;
      const row = index >>> bits;
      const column = index - row * 2 ** bits;
      const where = `/samples/indices chunk ${chunk}`;
      if (n % components && index <= indices[n - 1]!) refuse('layout', where, 'positions are not ascending');
      if (row >= height || column >= width) refuse('layout', where, `a position lies outside the ${height}x${width} spectrum`);
      places[n] = row * width + column;
    }
    return places;
  }
}

export class SparseF16 implements ChunkDecoder {
  private constructor(
    private readonly header: PackHeader,
    private readonly values: Rows,
    private readonly positions: Stream,
  ) {}

  static async open(storage: Storage, header: PackHeader): Promise<SparseF16> {
    const values = await Rows.open(storage, 'samples/values', 'f2', shapeOf(header), header.chunkSamples);
    const chunks = Math.ceil(header.samples / header.chunkSamples);
    return new SparseF16(header, values, await Stream.open(storage, 'samples/positions', chunks));
  }

  async decode(chunk: number, samples: number): Promise<ChunkCoefficients> {
    const halves = (await this.values.read(chunk, samples)) as Uint16Array;
    const values = Float32Array.from(halves, halfToNumber);
    checkFinite(values, chunk);
    const { channels, height, width } = this.header;
    const stored = await this.positions.read(chunk);
    try {
      const bitmaps = await inflate(stored, channels * height * width * Math.ceil(samples / 8));
      return new Sparse(this.header, values, this.placesOf(bitmaps, samples));
    } catch (error) {
      if (!(error instanceof InflateError)) throw error;
      return refuse('layout', `/samples/positions chunk ${chunk}`, error.message);
    }
  }

  /** From a bit for each frequency and image the places of the kept ones of each image. */
  private placesOf(bitmaps: Uint8Array, samples: number): Uint32Array {
    const { channels, height, width, components } = this.header;
    const bytes = Math.ceil(samples / 8);
    const plane = height * width;
    const places = new Uint32Array(samples * channels * components);
    const wrong = () => new InflateError(`not exactly ${components} positions for each channel`);
    for (let channel = 0; channel < channels; channel++) {
      const counts = new Uint32Array(samples);
      for (let place = 0; place < plane; place++) {
        const row = (channel * plane + place) * bytes;
        for (let byte = 0; byte < bytes; byte++) {
          for (let bits = bitmaps[row + byte]!, bit = 0; bits; bits = (bits << 1) & 255, bit++) {
            if (!(bits & 128)) continue;
            const image = 8 * byte + bit;
            if (image >= samples || counts[image] === components) throw wrong();
            places[(image * channels + channel) * components + counts[image]!++] = place;
          }
        }
      }
      if (counts.some((count) => count !== components)) throw wrong();
    }
    return places;
  }
}
