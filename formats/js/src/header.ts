import { decodeText } from './bytes.js';
import { refuse } from './errors.js';
import type { StoredAttribute } from './storage.js';

/** What the attributes of a pack say. */
export interface PackHeader {
  formatVersion: string;
  samples: number;
  channels: number;
  height: number;
  width: number;
  /** Bits of a channel of the original pixels: 8 or 16. */
  bits: number;
  /** Coefficients of each channel of each image that are kept. */
  components: number;
  chunkSamples: number;
  codec: 'sparse-f32' | 'sparse-f16' | 'quantized';
  transform: string;
  block: 'full' | '8' | '16' | '32';
  colorSpace: 'gray' | 'rgb' | 'ycbcr' | 'planes';
  /** The quantization step; 0 with the sparse codecs. */
  step: number;
  /** Of the original pixels, on [0, 1], for each channel. */
  mean: number[];
  std: number[];
  generator: string;
  created: string;
}

/** How an image is cut: the size of a tile, and how many there are, down and across. */
export interface Tiling {
  height: number;
  width: number;
  down: number;
  across: number;
}

export const MAX_CHUNK_BYTES = 2 ** 28;
const MAX_TEXT = 4096;
const MAX_SIDE = 65536;
const MAX_IMAGE = 2 ** 26;
const MAX_TILE = 2 ** 16;
const CODECS = ['sparse-f32', 'sparse-f16', 'quantized'];

export function tilingOf(header: PackHeader): Tiling {
  const { height, width, block } = header;
  if (block === 'full') return { height, width, down: 1, across: 1 };
  const side = Number(block);
  return { height: side, width: side, down: Math.ceil(height / side), across: Math.ceil(width / side) };
}

/** Compare two versions of one major version. */
export function isSince(header: PackHeader, minor: number): boolean {
  return Number(header.formatVersion.split('.')[1]) >= minor;
}

export function readHeader(attributes: Map<string, StoredAttribute>): PackHeader {
  const at = new Attributes(attributes);
  if (!at.is('format', 'edgepack')) refuse('not-a-pack', '/', 'this HDF5 file is not a pack');
  const formatVersion = readVersion(at);
  const minor = Number(formatVersion.split('.')[1]);
  const integer = (name: string, most: number) => at.integer(name, most);
  const [mean, std] = [at.floats('mean', 'channels'), at.floats('std', 'channels')];
  const samples = integer('samples', 2 ** 31 - 1);
  const channels = integer('channels', 32);
  const height = integer('height', MAX_SIDE);
  const width = integer('width', MAX_SIDE);
  const shape = { samples, channels, height, width, bits: minor >= 3 ? at.bits() : 8 };
  if (channels * height * width > MAX_IMAGE) refuse('limit', place('height'), `an image of (${channels}, ${height}, ${width}) has more than 2^26 numbers`);
  const components = integer('components', height * width);
  const chunkSamples = integer('chunk_samples', samples);
  const codec = at.text('codec');
  if (!CODECS.includes(codec)) refuse('version', place('codec'), `${quote(codec)} is not known; known are ${CODECS.join(', ')}`);
  if (minor < 2 && codec !== CODECS[0]) refuse('layout', place('codec'), `${codec} is there since 1.2`);
  const quantized = codec === 'quantized';
  const header = {
    formatVersion,
    ...shape,
    components,
    chunkSamples,
    codec: codec as PackHeader['codec'],
    transform: at.choice('transform', ['dct-ii-orthonormal']),
    block: at.choice('block', quantized ? ['full', '8', '16', '32'] : ['full']) as PackHeader['block'],
    colorSpace: readColors(at, channels, quantized, minor),
    step: quantized ? at.step() : 0,
    mean: checked('mean', mean, () => true),
    std: checked('std', std, (value) => value > 0),
    generator: at.text('generator'),
    created: at.text('created'),
  };
  checkChunk(header);
  return header;
}

function readVersion(at: Attributes): string {
  const where = place('format_version');
  const version = at.text('format_version');
  if (!/^[0-9]{1,9}\.[0-9]{1,9}$/.test(version)) refuse('version', where, `${quote(version)} is not MAJOR.MINOR`);
  if (Number(version.split('.')[0]) !== 1) refuse('version', where, `EdgePack ${version} is not read by this release, which reads 1; take the one that does`);
  return version;
}

function readColors(at: Attributes, channels: number, quantized: boolean, minor: number): PackHeader['colorSpace'] {
  if (minor < 3 && channels !== 3) refuse('layout', place('channels'), `${channels} channels are there since 1.3`);
  const few = channels === 1 ? ['gray'] : ['planes'];
  const allowed = channels === 3 ? ['rgb', ...(quantized ? ['ycbcr'] : [])] : few;
  return at.choice('color_space', allowed) as PackHeader['colorSpace'];
}

/** Check what a chunk takes in memory, in its largest array. */
function checkChunk(header: PackHeader) {
  const { chunkSamples, channels, components, height, width } = header;
  const tiling = tilingOf(header);
  const pixels = tiling.height * tiling.width;
  if (header.codec === 'quantized') {
    if (pixels > MAX_TILE) refuse('limit', place('block'), `a tile of ${tiling.height}x${tiling.width} has more than 2^16 pixels`);
    limitChunk(2 * chunkSamples * channels * tiling.down * tiling.across * (pixels + 1), '');
    return;
  }
  limitChunk(chunkSamples * channels * components * (header.codec === 'sparse-f32' ? 4 : positionBytes(header)), '');
  if (header.codec === 'sparse-f16') limitChunk(channels * height * width * Math.ceil(chunkSamples / 8), 'bitmaps of ');
}

function limitChunk(bytes: number, what: string) {
  if (bytes > MAX_CHUNK_BYTES) refuse('limit', place('chunk_samples'), `a chunk of ${what}${bytes} B exceeds ${MAX_CHUNK_BYTES} B`);
}

/** Bits of a column in a position, ceil(log2 W). */
export function columnBits(width: number): number {
  return width === 1 ? 0 : 32 - Math.clz32(width - 1);
}

export function positionBytes({ height, width }: PackHeader): 2 | 4 {
  return columnBits(height) + columnBits(width) <= 16 ? 2 : 4;
}

function checked(name: string, values: number[], sound: (value: number) => boolean): number[] {
  if (!values.every((value) => Number.isFinite(value) && sound(value))) refuse('layout', place(name), `${values.join(', ')} are not sound`);
  return values;
}

const place = (name: string) => `/ attribute ${name}`;
const quote = (text: string) => JSON.stringify(text.slice(0, 100));

class Attributes {
  constructor(private readonly found: Map<string, StoredAttribute>) {}

  has(name: string): boolean {
    return this.found.has(name);
  }

  is(name: string, wanted: string): boolean {
    const one = this.found.get(name);
    if (one?.type.kind !== 'text' || one.bytes.length > MAX_TEXT || one.shape?.length !== 0) return false;
    return new TextDecoder().decode(one.bytes).replace(/\0+$/, '') === wanted;
  }

  private get(name: string): StoredAttribute {
    return this.found.get(name) ?? refuse('layout', place(name), 'missing');
  }

  text(name: string): string {
    const { type, shape, bytes } = this.get(name);
    if (type.kind !== 'text' || shape?.length !== 0) refuse('layout', place(name), 'not one text of fixed length');
    if (type.size > MAX_TEXT) refuse('layout', place(name), `longer than ${MAX_TEXT} B`);
    try {
      return decodeText(bytes);
    } catch {
      return refuse('layout', place(name), 'not UTF-8');
    }
  }

  choice(name: string, allowed: string[]): string {
    const found = this.text(name);
    if (!allowed.includes(found)) refuse('layout', place(name), `${quote(found)} is none of ${allowed.join(', ')}`);
    return found;
  }

  integer(name: string, most: number): number {
    const value = this.number(name);
    if (value < 1n || value > BigInt(most)) refuse('limit', place(name), `${value} is not between 1 and ${most}`);
    return Number(value);
  }

  bits(): number {
    if (!this.has('bits')) return 8;
    const value = Number(this.number('bits'));
    if (value !== 8 && value !== 16) refuse('layout', place('bits'), `${value} is neither 8 nor 16`);
    return value;
  }

  private number(name: string): bigint {
    const { type, shape, bytes } = this.get(name);
    if ((type.kind !== 'int' && type.kind !== 'uint') || shape?.length !== 0) refuse('layout', place(name), 'not one integer');
    const digits = [...bytes];
    if (type.littleEndian) digits.reverse();
    const value = digits.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
    return type.kind === 'int' ? BigInt.asIntN(8 * type.size, value) : value;
  }

  /** As many numbers as another attribute says. */
  floats(name: string, counted: string): number[] {
    const count = this.number(counted);
    const { type, shape, bytes } = this.get(name);
    if (type.kind !== 'float' || shape?.length !== 1 || BigInt(shape[0]!) !== count) refuse('layout', place(name), `not ${count} floating point numbers`);
    return readFloats(bytes, type.size, type.littleEndian);
  }

  step(): number {
    const { type, shape, bytes } = this.get('step');
    if (type.kind !== 'float' || shape?.length !== 0) refuse('layout', place('step'), 'not one floating point number');
    const value = readFloats(bytes, type.size, type.littleEndian)[0]!;
    if (!(value > 0 && value < Infinity)) refuse('layout', place('step'), `${value} is not a positive number`);
    return value;
  }
}

function readFloats(bytes: Uint8Array, size: number, littleEndian: boolean): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: bytes.length / size }, (_, n) => {
    if (size === 8) return view.getFloat64(n * 8, littleEndian);
    return size === 4 ? view.getFloat32(n * 4, littleEndian) : halfToNumber(view.getUint16(n * 2, littleEndian));
  });
}

/** The number that 16 bits of IEEE 754 mean. */
export function halfToNumber(half: number): number {
  const exponent = (half >> 10) & 31;
  const mantissa = half & 1023;
  const sign = half & 0x8000 ? -1 : 1;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + mantissa / 1024) : 2 ** -14 * (mantissa / 1024));
}
