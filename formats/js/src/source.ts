/** Where the bytes of a file come from: memory, or a `Blob` of which only the parts that are asked for are read. */
export interface ByteSource {
  readonly size: number;
  /** Exactly `length` bytes, which the caller has checked to lie in the file. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

class Memory implements ByteSource {
  constructor(private readonly bytes: Uint8Array) {}

  get size() {
    return this.bytes.length;
  }

  async read(offset: number, length: number) {
    return this.bytes.subarray(offset, offset + length);
  }
}

class BlobSource implements ByteSource {
  constructor(private readonly blob: Blob) {}

  get size() {
    return this.blob.size;
  }

  async read(offset: number, length: number) {
    return new Uint8Array(await this.blob.slice(offset, offset + length).arrayBuffer());
  }
}

export function byteSource(data: Uint8Array | ArrayBuffer | Blob): ByteSource {
  if (data instanceof Blob) return new BlobSource(data);
  return new Memory(data instanceof ArrayBuffer ? new Uint8Array(data) : data);
}
