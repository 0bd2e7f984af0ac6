import { Cursor } from './bytes.js';
import { lookup3 } from './checksums.js';
import { refuse } from './errors.js';
import { inflate } from './inflate.js';
import { NotPlain, readMessages, type Layout, type Message } from './messages.js';
import type { ByteSource } from './source.js';
import type { Storage, StoredAttribute, StoredDataset, StoredObject, StoredType } from './storage.js';

const MAX_OBJECTS = 64;
const MAX_LINKS = 8;
const MAX_BLOCK = 2 ** 28;
const SUPERBLOCK = 48;
const SIGNATURE = [0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a];

/** A stored chunk: where it begins, and how many bytes it has in the file. */
interface Places {
  offsets: Float64Array;
  sizes: Float64Array;
}

/** Whether the bytes begin as an HDF5 file without a user block does. */
export async function hasSignature(source: ByteSource): Promise<boolean> {
  if (source.size < SIGNATURE.length) return false;
  const found = await source.read(0, SIGNATURE.length);
  return SIGNATURE.every((byte, at) => found[at] === byte);
}

/**
 * Check that all metadata of a file are as the section "Plain storage" of the specification wants them, and return
 * what they say. Nothing but metadata is read; no code of HDF5 runs.
 *
 * @throws PackError of kind `layout` where the file is not plain, `checksum` where it is damaged
 */
export async function openPlain(source: ByteSource): Promise<Storage> {
  try {
    return await new PlainFile(source).open();
  } catch (error) {
    if (error instanceof RangeError) refuse('layout', '/', 'not stored plainly: a part ends too early');
    if (error instanceof NotPlain) refuse('layout', '/', `not stored plainly: ${error.message}`);
    throw error;
  }
}

class PlainFile {
  private end = 0;
  private readonly extents: [number, number][] = [];
  private readonly seen = new Set<number>();
  private readonly found = new Map<string, StoredObject>();

  constructor(private readonly source: ByteSource) {}

  async open(): Promise<Storage> {
    const attributes = await this.enter(await this.header(await this.superblock()), '', 0);
    this.checkOverlaps();
    const find = (path: string) => this.found.get(path) ?? null;
    return { attributes, find, size: this.source.size, close: () => undefined };
  }

  /** The address of the root group. */
  private async superblock(): Promise<number> {
    if (this.source.size < SUPERBLOCK) refuse('checksum', '/', 'the file is cut short');
    this.end = SUPERBLOCK;
    const cursor = await this.block(0, SUPERBLOCK);
    cursor.take(SIGNATURE.length);
    const version = cursor.u8();
    if (version !== 2 && version !== 3) throw new NotPlain('its superblock is of an old kind');
    if (cursor.u8() !== 8 || cursor.u8() !== 8) throw new NotPlain('its addresses have not 8 bytes');
    if (cursor.u8() !== 0) throw new NotPlain('it is not complete');
    if (cursor.u64() !== 0) throw new NotPlain('it does not begin at byte 0');
    if (cursor.u64() !== Infinity) throw new NotPlain('its superblock has an extension');
    this.end = cursor.u64();
    if (this.end > this.source.size) refuse('checksum', '/', 'the file is cut short');
    return cursor.u64();
  }

  /** Note that bytes belong to one object, and that they are in the file. */
  private claim(offset: number, length: number) {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.end)) throw new NotPlain('a part lies outside the file');
    if (length > 0) this.extents.push([offset, offset + length]);
  }

  /** A block of metadata whose last 4 bytes are its checksum, without them. */
  private async block(offset: number, length: number): Promise<Cursor> {
    this.claim(offset, length);
    if (length > MAX_BLOCK) throw new NotPlain('a part is too large');
    return new Cursor(this.checked(await this.source.read(offset, length)));
  }

  private checked(bytes: Uint8Array): Uint8Array {
    const content = bytes.subarray(0, bytes.length - 4);
    if (new Cursor(bytes, content.length).u32() !== lookup3(content)) {
      refuse('checksum', '/', 'metadata do not match their checksum');
    }
    return content;
  }

  /** Bytes of a part before its length is known. */
  private async peek(offset: number, length: number): Promise<Cursor> {
    if (!(offset >= 0 && offset + length <= this.end)) throw new NotPlain('a part lies outside the file');
    return new Cursor(await this.source.read(offset, length));
  }

  /** The messages of an object header, in all its parts. */
  private async header(address: number): Promise<Message[]> {
    if (this.seen.has(address)) throw new NotPlain('an object has two names');
    if (this.seen.add(address).size > MAX_OBJECTS) throw new NotPlain(`it has more than ${MAX_OBJECTS} objects`);
    const start = await this.peek(address, Math.min(26, this.end - address));
    if (start.u32() !== 0x5244484f || start.u8() !== 2) throw new NotPlain('an object header is of another kind');
    const flags = start.u8();
    if (flags & 0xcc) throw new NotPlain('an object header is of another kind');
    if (flags & 0x20) start.take(16);
    // How many attributes stay in the header, and from how few on they come back to it.
    if (flags & 0x10 && start.u16() < start.u16()) throw new NotPlain('an object header contradicts itself');
    const size = start.uint(1 << (flags & 3));
    const begin = start.at;
    const cursor = await this.block(address, begin + size + 4);
    cursor.take(begin);
    const { messages, continuations } = readMessages(cursor);
    while (continuations.length) {
      const [offset, length] = continuations.pop()!;
      if (length < 8) throw new NotPlain('a part ends too early');
      const more = await this.block(offset, length);
      if (more.u32() !== 0x4b48434f) throw new NotPlain('a part of an object header is of another kind');
      const read = readMessages(more);
      messages.push(...read.messages);
      continuations.push(...read.continuations);
    }
    return messages;
  }

  /** Look into a group; objects are `depth + 1` names below the root. */
  private async enter(messages: Message[], path: string, depth: number) {
    const attributes = attributesOf(messages);
    if (messages.some((one) => ['space', 'type', 'layout', 'filters', 'fill'].includes(one.what))) {
      throw new NotPlain('a group has parts of another kind');
    }
    only(messages, 'link info');
    only(messages, 'group info');
    const links = messages.filter((one) => one.what === 'link');
    if (links.length > MAX_LINKS) throw new NotPlain(`a group holds more than ${MAX_LINKS} objects`);
    for (const { name, address } of links) {
      const place = path ? `${path}/${name}` : name;
      if (name === '' || name === '.' || name.includes('/') || this.found.has(place)) throw new NotPlain('a name is not sound');
      await this.object(address, place, depth + 1);
    }
    return attributes;
  }

  private async object(address: number, path: string, depth: number) {
    const messages = await this.header(address);
    if (messages.some((one) => one.what === 'link' || one.what === 'link info')) {
      if (depth > 1) throw new NotPlain('groups lie within groups too deep');
      this.found.set(path, { what: 'group' });
      await this.enter(messages, path, depth);
    } else {
      this.found.set(path, await this.dataset(messages));
    }
  }

  private async dataset(messages: Message[]): Promise<StoredDataset> {
    const { shape } = only(messages, 'space');
    const { type } = only(messages, 'type');
    const { layout } = only(messages, 'layout');
    only(messages, 'fill');
    const filters = messages.filter((one) => one.what === 'filters');
    if (filters.length > 1) throw new NotPlain('an object has a part twice');
    const applied = filters[0]?.filters ?? [];
    if (applied.length && filters[0]!.elementSize !== type.size) throw new NotPlain('filters do not fit the type');
    const size = shape.reduce((product, length) => product * length, type.size);
    const common = { what: 'dataset' as const, type, shape, attributes: attributesOf(messages), filters: applied };
    if (layout.kind !== 'chunked') {
      if (applied.length) throw new NotPlain('filters without chunks');
      return { ...common, layout: 'whole', chunks: [], read: this.whole(layout, size), readChunk: noChunks };
    }
    const { chunks, elementSize } = layout;
    if (chunks.length !== shape.length || elementSize !== type.size) throw new NotPlain('shapes and chunks disagree');
    const counts = shape.map((length, axis) => Math.ceil(length / chunks[axis]!));
    const count = counts.reduce((product, one) => product * one, 1);
    const bytes = chunks.reduce((product, length) => product * length, type.size);
    if (count < 1 || bytes > 2 ** 32 - 1) throw new NotPlain('shapes and chunks disagree');
    const places = await this.places(layout, count, bytes, applied.length > 0);
    for (let n = 0; n < count; n++) this.claim(places.offsets[n]!, places.sizes[n]!);
    return { ...common, layout: 'chunked', chunks, read: noRange, readChunk: this.chunkReader(places, bytes, type, applied) };
  }

  private whole(layout: Exclude<Layout, ChunkedLayout>, size: number) {
    const stated = layout.kind === 'compact' ? layout.data.length : layout.size;
    if (stated !== size) throw new NotPlain('shapes and sizes disagree');
    if (layout.kind === 'compact') return async (from: number, to: number) => layout.data.slice(from, to);
    if (size > 0 && layout.address === Infinity) throw new NotPlain('a data set has no data');
    if (size > 0) this.claim(layout.address, size);
    return (from: number, to: number) => this.source.read(size > 0 ? layout.address + from : 0, to - from);
  }

  private async places(layout: ChunkedLayout, count: number, bytes: number, filtered: boolean): Promise<Places> {
    if (layout.address === Infinity) throw new NotPlain('a data set has no data');
    if (layout.index === 3) return this.fixedArray(layout, count, bytes, filtered);
    if (count > this.end) throw new NotPlain('a part lies outside the file');
    const places = { offsets: new Float64Array(count), sizes: new Float64Array(count).fill(bytes) };
    for (let n = 0; n < count; n++) places.offsets[n] = layout.address + n * bytes;
    if (layout.index === 2 ? filtered : count !== 1 || filtered !== (layout.filteredSize !== null)) {
      throw new NotPlain('shapes and chunks disagree');
    }
    if (layout.index === 1 && filtered) places.sizes[0] = layout.filteredSize!;
    return places;
  }

  private async fixedArray(layout: ChunkedLayout, count: number, bytes: number, filtered: boolean): Promise<Places> {
    const sizeLength = Math.min(8, 1 + Math.floor((Math.floor(Math.log2(bytes)) + 8) / 8));
    const entry = filtered ? 8 + sizeLength + 4 : 8;
    const head = await this.block(layout.address, 28);
    const known = [0x44484146, 0, filtered ? 1 : 0, entry, layout.pageBits, count];
    const found = [head.u32(), head.u8(), head.u8(), head.u8(), head.u8(), head.u64()];
    if (known.some((value, at) => value !== found[at])) throw new NotPlain('an index of chunks disagrees with its shape');
    const address = head.u64();
    const perPage = 2 ** layout.pageBits;
    const pages = count > perPage ? Math.ceil(count / perPage) : 0;
    const bitmap = Math.ceil(pages / 8);
    const prefix = 14 + bitmap;
    const begin = await this.block(address, prefix + (pages ? 0 : count * entry) + 4);
    if (begin.u32() !== 0x42444146 || begin.u8() !== 0 || begin.u8() !== (filtered ? 1 : 0) || begin.u64() !== layout.address) {
      throw new NotPlain('an index of chunks is of another kind');
    }
    const places = { offsets: new Float64Array(count), sizes: new Float64Array(count).fill(bytes) };
    const fill = (cursor: Cursor, from: number, to: number) => {
      for (let n = from; n < to; n++) {
        places.offsets[n] = cursor.u64();
        if (!filtered) continue;
        places.sizes[n] = cursor.uint(sizeLength);
        if (cursor.u32() !== 0) throw new NotPlain('a chunk has a filter mask');
      }
    };
    if (!pages) fill(begin, 0, count);
    const bits = begin.take(bitmap);
    for (let page = 0, at = address + prefix + 4; page < pages; page++) {
      if (!(bits[page >> 3]! & (0x80 >> (page & 7)))) throw new NotPlain('a page of an index is not there');
      const from = page * perPage;
      const to = Math.min(count, from + perPage);
      fill(await this.block(at, (to - from) * entry + 4), from, to);
      at += (to - from) * entry + 4;
    }
    return places;
  }

  private chunkReader({ offsets, sizes }: Places, bytes: number, type: StoredType, filters: number[]) {
    return async (number: number, _rows: number, size: number): Promise<Uint8Array> => {
      let stored = await this.source.read(offsets[number]!, sizes[number]!);
      for (const filter of [...filters].reverse()) {
        if (filter === 1) stored = await inflate(stored, bytes);
        if (filter === 2) stored = unshuffle(stored, type.size);
      }
      return stored.subarray(0, size);
    };
  }

  private checkOverlaps() {
    this.extents.sort((one, other) => one[0] - other[0]);
    for (let n = 1; n < this.extents.length; n++) {
      if (this.extents[n]![0] < this.extents[n - 1]![1]) throw new NotPlain('parts lie over each other');
    }
  }
}

type ChunkedLayout = Extract<Layout, { kind: 'chunked' }>;

/** Undo HDF5's shuffle: first come the first bytes of all elements, then the second ones, and so on. */
export function unshuffle(bytes: Uint8Array, size: number): Uint8Array {
  const count = Math.floor(bytes.length / size);
  const result = bytes.slice();
  for (let k = 0; k < size; k++) {
    for (let n = 0; n < count; n++) result[n * size + k] = bytes[k * count + n]!;
  }
  return result;
}

function attributesOf(messages: Message[]): Map<string, StoredAttribute> {
  const attributes = new Map<string, StoredAttribute>();
  for (const message of messages) {
    if (message.what !== 'attribute') continue;
    if (attributes.has(message.name)) throw new NotPlain('an attribute stands twice');
    attributes.set(message.name, message.attribute);
  }
  return attributes;
}

/** The one message of a kind that an object must have. */
function only<W extends Message['what']>(messages: Message[], what: W): Extract<Message, { what: W }> {
  const found = messages.filter((one) => one.what === what);
  if (found.length !== 1) throw new NotPlain(found.length ? 'an object has a part twice' : 'an object lacks a part');
  return found[0] as Extract<Message, { what: W }>;
}

const noChunks = () => Promise.reject(new Error('no chunks'));
const noRange = () => Promise.reject(new Error('stored in chunks'));
