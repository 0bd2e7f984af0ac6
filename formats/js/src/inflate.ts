import { adler32 } from './checksums.js';

/** A stream in the zlib format that does not expand to what it must. */
export class InflateError extends Error {}

/**
 * Expand the zlib format to between `least` and `most` bytes; never more than a piece beyond `most` is kept.
 * Bytes after the end of the stream are refused, which some platforms would ignore.
 */
export async function inflate(bytes: Uint8Array, least: number, most = least): Promise<Uint8Array> {
  const expanded = await expand(bytes, most);
  if (expanded.length < least) throw new InflateError(`it expands to ${expanded.length} B in place of ${least} B`);
  const end = bytes.subarray(-4);
  const stated = ((end[0]! << 24) | (end[1]! << 16) | (end[2]! << 8) | end[3]!) >>> 0;
  if (stated !== adler32(expanded)) throw new InflateError('bytes follow the end of the stream');
  return expanded;
}

async function expand(bytes: Uint8Array, most: number): Promise<Uint8Array> {
  const piped = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream('deflate'));
  const reader = piped.getReader();
  const result = new Uint8Array(most);
  let length = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return result.subarray(0, length);
      if (length + value.length > most) break;
      result.set(value, length);
      length += value.length;
    }
  } catch (error) {
    throw new InflateError(`it does not expand: ${(error as Error).message}`);
  }
  await reader.cancel().catch(() => undefined);
  throw new InflateError(`it expands to more than ${most} B`);
}
