/** Reads little-endian numbers one after the other; beyond the end it throws a RangeError. */
export class Cursor {
  private readonly view: DataView;

  constructor(
    readonly bytes: Uint8Array,
    public at = 0,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  get left() {
    return this.bytes.length - this.at;
  }

  u8() {
    return this.view.getUint8(this.at++);
  }

  u16() {
    this.at += 2;
    return this.view.getUint16(this.at - 2, true);
  }

  u32() {
    this.at += 4;
    return this.view.getUint32(this.at - 4, true);
  }

  /** A size or an address: beyond 2^53 it is rounded, and so still beyond any file. All ones give Infinity. */
  u64() {
    const low = this.u32();
    const high = this.u32();
    return low === 0xffffffff && high === 0xffffffff ? Infinity : high * 2 ** 32 + low;
  }

  /** An unsigned number of `size` bytes. */
  uint(size: number) {
    let value = 0;
    for (let k = 0; k < size; k++) value += this.u8() * 2 ** (8 * k);
    return value;
  }

  take(length: number) {
    if (length > this.left) throw new RangeError('beyond the end');
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }
}

/** Bytes whose numbers a typed array may look at: aligned, and alone in their buffer. */
export function aligned(bytes: Uint8Array): ArrayBuffer {
  const { buffer, byteOffset, length } = bytes;
  if (buffer instanceof ArrayBuffer && byteOffset === 0 && buffer.byteLength === length) return buffer;
  return bytes.slice().buffer as ArrayBuffer;
}

/** Text of fixed length without the zero bytes at its end. */
export function decodeText(bytes: Uint8Array): string {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes.subarray(0, end));
}
