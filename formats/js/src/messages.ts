import { Cursor } from './bytes.js';
import type { StoredAttribute, StoredType } from './storage.js';

/** Why a file is not stored as the section "Plain storage" of the specification wants it. */
export class NotPlain extends Error {}

export type Layout =
  | { kind: 'compact'; data: Uint8Array }
  | { kind: 'contiguous'; address: number; size: number }
  | {
      kind: 'chunked';
      chunks: number[];
      elementSize: number;
      /** 1 single chunk, 2 implicit, 3 fixed array */
      index: number;
      address: number;
      filteredSize: number | null;
      pageBits: number;
    };

/** A message of an object header, as the HDF5 file format specification calls it. */
export type Message =
  | { what: 'space'; shape: number[] }
  | { what: 'type'; type: StoredType }
  | { what: 'fill' }
  | { what: 'link info' }
  | { what: 'group info' }
  | { what: 'link'; name: string; address: number }
  | { what: 'layout'; layout: Layout }
  | { what: 'filters'; filters: number[]; elementSize: number }
  | { what: 'attribute'; name: string; attribute: StoredAttribute };

/** Flags that a message may have: it is constant, it is not to be shared. */
const KNOWN_FLAGS = 5;

/** Read the messages of one part of an object header, from the cursor to the end of its bytes. */
export function readMessages(cursor: Cursor) {
  const messages: Message[] = [];
  const continuations: [number, number][] = [];
  // What is left at the end and is too short for a message is a gap.
  while (cursor.left >= 4) {
    const type = cursor.u8();
    const size = cursor.u16();
    if (cursor.u8() & ~KNOWN_FLAGS) throw new NotPlain('it shares messages');
    const body = new Cursor(cursor.take(size));
    if (type === 0x10) continuations.push([body.u64(), body.u64()]);
    else messages.push(...readMessage(type, body));
    if (type !== 0 && body.left) throw new NotPlain('a part is too long');
  }
  return { messages, continuations };
}

function readMessage(type: number, body: Cursor): Message[] {
  switch (type) {
    case 0x00:
      return [];
    case 0x01:
      return [{ what: 'space', shape: readSpace(body) }];
    case 0x02:
      checkNoHeap(body, 'links');
      return [{ what: 'link info' }];
    case 0x03:
      return [{ what: 'type', type: readType(body) }];
    case 0x05:
      return readFill(body);
    case 0x06:
      return [readLink(body)];
    case 0x08:
      return [{ what: 'layout', layout: readLayout(body) }];
    case 0x0a:
      return body.u16() === 0 ? [{ what: 'group info' }] : notKnown('group info');
    case 0x0b:
      return [{ what: 'filters', ...readFilters(body) }];
    case 0x0c:
      return [readAttribute(body)];
    case 0x15:
      checkNoHeap(body, 'attributes');
      return [];
    default:
      return notKnown(`message ${type}`);
  }
}

function notKnown(what: string): never {
  throw new NotPlain(`it has parts that a pack has not (${what})`);
}

function readSpace(body: Cursor): number[] {
  if (body.u8() !== 2) notKnown('dataspace');
  const rank = body.u8();
  const flags = body.u8();
  const kind = body.u8();
  if (kind > 1 || rank > 32 || (kind === 0) !== (rank === 0) || flags > 1) throw new NotPlain('a shape is not sound');
  const shape = Array.from({ length: rank }, () => body.u64());
  if (flags && shape.some((length) => body.u64() !== length)) throw new NotPlain('a shape can grow');
  return shape;
}

function readType(body: Cursor): StoredType {
  const head = body.u8();
  const flags = body.u8();
  const flagsAfter = body.u16();
  const size = body.u32();
  const layout = { 0: [1, 2, 4, 8], 1: [2, 4, 8], 3: null }[head & 15];
  if (layout === undefined || size === 0 || head < 16 || head >= 64 || (layout && !layout.includes(size))) throw new NotPlain('a type is of another kind');
  if ((head & 15) === 3) {
    // How the text is padded, and whether it is ASCII or UTF-8.
    if ((flags & 15) > 2 || flags >> 4 > 1 || flagsAfter) throw new NotPlain('a type is not sound');
    return { kind: 'text', size, littleEndian: true };
  }
  const littleEndian = (flags & 1) === 0;
  const isFloat = (head & 15) === 1;
  // A floating point number says here that its first digit is implied, and where its sign is.
  const wanted = isFloat ? [0x20, 8 * size - 1] : [flags & 8, 0];
  if ((flags & ~1) !== wanted[0] || flagsAfter !== wanted[1] || body.u16() !== 0 || body.u16() !== 8 * size) {
    throw new NotPlain('a type is not sound');
  }
  if (isFloat) return { kind: 'float', size: ieee(body, size), littleEndian };
  return { kind: flags & 8 ? 'int' : 'uint', size, littleEndian };
}

/** Check that a floating point type is IEEE's. */
function ieee(body: Cursor, size: number): number {
  const [mantissa, bias] = { 2: [10, 15], 4: [23, 127], 8: [52, 1023] }[size]!;
  const found = [body.u8(), body.u8(), body.u8(), body.u8(), body.u32()];
  const wanted = [mantissa, 8 * size - 1 - mantissa!, 0, mantissa, bias];
  if (found.some((value, at) => value !== wanted[at])) throw new NotPlain('a type is not sound');
  return size;
}

function readFill(body: Cursor): Message[] {
  if (body.u8() !== 3 || body.u8() & 0x20) throw new NotPlain('it has a fill value');
  return [{ what: 'fill' }];
}

/** Check that the message says that links or attributes stand in the object header. */
function checkNoHeap(body: Cursor, what: string) {
  if (body.u8() !== 0 || body.u8() !== 0) throw new NotPlain(`it keeps ${what} in their order of creation`);
  if (body.u64() !== Infinity || body.u64() !== Infinity) throw new NotPlain(`it keeps ${what} in a heap`);
}

function readLink(body: Cursor): Message {
  if (body.u8() !== 1) notKnown('link');
  const flags = body.u8();
  if (flags & 0xe4) notKnown('link');
  if (flags & 8 && body.u8() !== 0) throw new NotPlain('it has links that are not hard');
  if (flags & 16 && body.u8() > 1) throw new NotPlain('a name is not sound');
  const name = readName(body.take(body.uint(1 << (flags & 3))));
  return { what: 'link', name, address: body.u64() };
}

/** A name, a letter for each byte: those that a reader looks for are ASCII, and no two become one. */
function readName(bytes: Uint8Array): string {
  if (bytes.length === 0 || bytes.includes(0)) throw new NotPlain('a name is not sound');
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');
}

function readLayout(body: Cursor): Layout {
  const version = body.u8();
  const kind = body.u8();
  if (version !== 3 && version !== 4) notKnown('layout');
  if (kind === 0) return { kind: 'compact', data: body.take(body.u16()) };
  if (kind === 1) return { kind: 'contiguous', address: body.u64(), size: body.u64() };
  if (kind !== 2 || version !== 4) notKnown('layout');
  const flags = body.u8();
  const rank = body.u8() - 1;
  const width = body.u8();
  if (rank < 1 || rank > 32 || width < 1 || width > 8) throw new NotPlain('a shape is not sound');
  const chunks = Array.from({ length: rank }, () => body.uint(width));
  const elementSize = body.uint(width);
  const index = body.u8();
  if (chunks.includes(0) || index < 1 || index > 3 || flags & (index === 1 ? ~2 : ~0)) notKnown('index of chunks');
  const filteredSize = flags & 2 ? body.u64() : null;
  if (filteredSize !== null && body.u32() !== 0) throw new NotPlain('a chunk has a filter mask');
  const pageBits = index === 3 ? body.u8() : 0;
  return { kind: 'chunked', chunks, elementSize, index, filteredSize, pageBits, address: body.u64() };
}

/** Shuffle and deflate, each with one number: the size of an element, and the level. */
function readFilters(body: Cursor): { filters: number[]; elementSize: number } {
  const known = body.u8() === 2 && body.u8() === 2;
  const [shuffle, shuffleFlags, shuffleNumbers, elementSize] = [body.u16(), body.u16(), body.u16(), body.u32()];
  const [deflate, deflateFlags, deflateNumbers, level] = [body.u16(), body.u16(), body.u16(), body.u32()];
  const found = [shuffle, shuffleNumbers, deflate, deflateNumbers];
  if (!known || found.join() !== '2,1,1,1' || shuffleFlags > 1 || deflateFlags > 1 || level > 9) throw new NotPlain('it has filters that a pack has not');
  return { filters: [shuffle, deflate], elementSize };
}

function readAttribute(body: Cursor): Message {
  if (body.u8() !== 3 || body.u8() !== 0) notKnown('attribute');
  const [nameSize, typeSize, spaceSize] = [body.u16(), body.u16(), body.u16()];
  if (body.u8() > 1) notKnown('attribute');
  const name = body.take(nameSize);
  if (name.at(-1) !== 0) throw new NotPlain('a name is not sound');
  const [typeBody, spaceBody] = [new Cursor(body.take(typeSize)), new Cursor(body.take(spaceSize))];
  const [type, shape] = [readType(typeBody), readSpace(spaceBody)];
  if (typeBody.left || spaceBody.left) throw new NotPlain('a part is too long');
  const bytes = body.take(shape.reduce((product, length) => product * length, type.size));
  return { what: 'attribute', name: readName(name.subarray(0, -1)), attribute: { type, shape, bytes } };
}
